"""What runbooks and the page on operating tell one to type is there to be typed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.stack import engine_or_skip
from tests.monitoring.waiting import until

HOME = Path(__file__).resolve().parents[2]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((HOME / "compose.yaml").read_text())[
    "services"
]
PAGES = [*sorted((HOME / "docs" / "runbooks").glob("*.md")), HOME / "docs" / "operations.md"]
INSIDE = re.compile(r"docker compose (?:exec|run)(?: -\S+)* ([^-\s]\S*)\b(.*)", re.S)


def codes() -> Iterator[tuple[str, str]]:
    """Each page's name with what stands in code on it, in a line or in a block. Tables tell what
    once was."""
    for page in PAGES:
        prose = []
        for part in re.split(r"\n\n+", page.read_text(encoding="utf-8")):
            if part.startswith("    "):
                yield page.name, part
            elif not part.startswith("|"):
                prose.append(part)
        for code in re.findall(r"`([^`]+)`", "\n\n".join(prose)):
            yield page.name, " ".join(code.split())


def inside() -> Iterator[tuple[str, str, str]]:
    """Page, container, and what is run there."""
    for page, code in codes():
        for command in re.split(r"(?=docker compose )", code):
            if found := INSIDE.match(command):
                yield page, found[1], found[2]


def mounts(service: str) -> Iterator[str]:
    for one in SERVICES[service].get("volumes", ()):
        yield one["target"] if isinstance(one, dict) else one.split(":")[1]
    yield from (one.split(":")[0] for one in SERVICES[service].get("tmpfs", ()))


def test_commands_are_found() -> None:
    found = {(page, service) for page, service, _ in inside()}
    assert {("README.md", "secrets"), ("README.md", "prometheus")} <= found
    assert {("operations.md", "gateway"), ("DiskFull.md", "worker")} <= found
    assert len(found) > 20


def test_what_is_run_in_a_container_finds_its_files() -> None:
    for page, service, command in inside():
        assert service in SERVICES, (page, service)
        for path in re.findall(r"(?:/var/lib|/run/secrets|/prometheus\b)[\w./*-]*", command):
            if path.startswith("/var/lib") or "secrets" in path:
                assert path.startswith(tuple(mounts(service))), (page, service, path)


def test_a_pattern_is_for_a_shell_in_the_container() -> None:
    for page, _, command in inside():
        bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", command)
        assert "*" not in bare, (page, command)


def test_python_of_ours_runs_in_a_container() -> None:
    """A host that runs the stack has no environment of ours."""
    written = sum(code.count("python -m") for _, code in codes())
    assert written == sum(command.count("python -m") for _, _, command in inside()) > 10


def test_a_pack_is_built_into_all_that_read_it() -> None:
    """Of our folders those that load packs; the doctor is asked by hand."""
    readers = {
        path.relative_to(HOME).parts[:2]
        for folder in ("services", "trainer")
        for path in (HOME / folder).rglob("*.py")
        if re.search(r"from govor.domains import .*\bload_packs?\b", path.read_text())
    }
    names = {"worker" if one[0] == "trainer" else one[1] for one in readers} - {"doctor"}
    text = PAGES[-1].read_text()
    (built,) = re.findall(r"docker compose build (\S.*)\n.* python -m govor.domains check", text)
    assert set(built.split()) == names == {"worker", "gateway", "generator"}
    assert f"docker compose up --detach --wait --no-deps {built}\n" in text


def test_an_upgrade_starts_anew_what_reads_its_files_once() -> None:
    told = SERVICES["prometheus"]["command"]
    assert "--enable-feature=auto-reload-config" in told
    files = {
        name
        for name, one in SERVICES.items()
        if any(str(mount).startswith("./") for mount in one.get("volumes", ()))
    }
    again = {"prometheus", "grafana"}  # they look again and again
    one_shot = {"secrets"}  # runs at each `up`, and writes what Alertmanager reads
    text = PAGES[-1].read_text().partition("## An upgrade")[2]
    (restarted,) = re.findall(r"docker compose restart (.*)\n", text)
    assert set(restarted.split()) == (files - again - one_shot) | {"alertmanager"}


@contextmanager
def container(folder: Path) -> Iterator[str]:
    """The stack's Prometheus with its own words and these files; looks for others each second."""
    entry = SERVICES["prometheus"]
    words = [re.sub(r"\$\{\w+:-([^{}]*)\}", r"\1", word) for word in entry["command"]]
    words = [word for word in words if "external-url" not in word]
    name = f"govor-rules-{os.getpid()}"
    run = ["docker", "run", "--detach", "--rm", "--network", "none", "--name", name]
    run += ["--volume", f"{folder}:/etc/prometheus:ro", entry["image"], *words]
    subprocess.run([*run, "--config.auto-reload-interval=1s"], check=True, capture_output=True)
    try:
        yield name
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=True, capture_output=True)


@pytest.mark.docker
@pytest.mark.smoke
def test_prometheus_takes_rules_that_changed(tmp_path: Path) -> None:
    """Asked as a runbook asks it when nothing else answers."""
    engine_or_skip()
    tmp_path.chmod(0o755)
    rules = tmp_path / "rules"
    rules.mkdir(mode=0o755)
    (tmp_path / "prometheus.yml").write_text(
        "global: {evaluation_interval: 1s}\nrule_files: [rules/*.yml]\n"
    )

    def write(value: int) -> None:
        new = rules / "objectives.new"  # as git does: another file by the old name
        rule = {"record": "objective:p95_seconds", "expr": f"vector({value})"}
        new.write_text(yaml.safe_dump({"groups": [{"name": "objectives", "rules": [rule]}]}))
        new.rename(rules / "objectives.yml")

    ask = ["promtool", "query", "instant", "http://127.0.0.1:9090"]

    def value(name: str) -> str:
        command = ["docker", "exec", name, *ask, "objective:p95_seconds"]
        return subprocess.run(command, capture_output=True, text=True).stdout

    write(1)
    with container(tmp_path) as name:
        until("the first rule", lambda: "=> 1 " in value(name), 120)
        write(2)
        until("the second", lambda: "=> 2 " in value(name), 120)
    (page,) = (page for page in PAGES if page.name == "ServiceDown.md")
    assert f"docker compose exec prometheus {' '.join(ask)} '" in page.read_text()
