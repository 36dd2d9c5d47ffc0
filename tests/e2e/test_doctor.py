"""`python -m services doctor` on what is stopped, on what runs, and on what is wrong."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from govor.config import Settings
from govor.database import migrate, transaction
from govor.repository import Repository, deploy
from services.doctor import Finding, examine, installation
from tests.e2e.conftest import HOME, Govor, free_port

LINE = re.compile(r"(ok|warn|fail) +(\S+) +(\S.*)")


def test_a_stopped_installation_is_well_and_stays_as_it_is(tmp_path: Path) -> None:
    var = tmp_path / "var"
    status, findings = _doctor(var, free_port(), free_port())
    assert status == 0
    assert {state for state, _, _ in findings} == {"ok", "warn"}
    assert ("warn", "services") in {finding[:2] for finding in findings}
    assert sum(what == "models" for _, what, _ in findings) == 7
    assert not var.exists()


def test_a_running_one_tells_what_each_service_serves(tmp_path: Path, govor: Govor) -> None:
    port, metrics = (httpx.URL(url).port or 0 for url in (govor.url, govor.metrics))
    status, findings = _doctor(tmp_path, port, metrics)
    assert status == 0
    said = {what: said for _, what, said in findings}
    assert said["nlu"] == "nlu version 1"
    assert said["tts"] == "tts-en version 1, tts-ru version 1"
    ports = [said for _, what, said in findings if what == "ports"]
    assert re.fullmatch(rf"{port}: the gateway, Govor \S+", ports[0])
    assert ports[1] == f"{metrics}: metrics"


def test_a_service_that_serves_another_version_than_is_deployed_is_told(
    tmp_path: Path, govor: Govor
) -> None:
    port = httpx.URL(govor.url).port or 0
    settings = Settings(var=tmp_path, port=port, metrics_port=free_port())
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    version = repository.open("nlu", 1)
    copied = repository.publish(
        "nlu",
        version.folder,
        **version.manifest.model_dump(exclude={"model", "version", "files", "created_at"}),
    )
    deploy(repository, "nlu", {"champion": copied.number}, 0)
    assert _what("nlu", settings) == [
        Finding("warn", "nlu", "nlu version 1; another version of nlu is deployed")
    ]


def test_what_is_wrong_is_told_with_what_to_do_and_without_secrets(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me admin,speak a-secret-key\n")
    keys.chmod(0o644)
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = Settings(
            var=tmp_path,
            keys_file=keys,
            port=other.getsockname()[1],
            metrics_port=free_port(),
            domain="astrology",
            database_url=f"postgresql+psycopg://govor:a-secret-word@127.0.0.1:{free_port()}/govor",
            broker_url=f"redis://:a-secret-word@127.0.0.1:{free_port()}/0",
        )
        findings = list(examine(settings))
    wrong = {finding.what: finding for finding in findings if finding.state != "ok"}
    assert wrong["keys"].said == f"everybody here can read {keys}: chmod 600 {keys}"
    taken = rf"{settings.port} is taken by \S+ \(pid {os.getpid()}\), which is not Govor, or hangs"
    assert re.fullmatch(taken, wrong["ports"].said)
    assert wrong["packs"].said == "GOVOR_DOMAIN=astrology: there is no such pack"
    assert wrong["database"].said.startswith("postgresql 127.0.0.1 does not answer")
    assert wrong["broker"].said.startswith("Redis at 127.0.0.1 does not answer")
    assert "secret" not in "".join(map(str, findings))


def test_a_schema_of_another_revision_is_told(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path, port=free_port(), metrics_port=free_port())
    migrate(settings.database)
    [well] = _what("database", settings)
    assert well.state == "ok"
    with transaction(settings.database) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    [old] = _what("database", settings)
    assert old.state == "fail"
    assert old.said.endswith("python -m services init")


def test_a_gpu_that_was_asked_for_and_is_not_used_is_told(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path, port=free_port(), metrics_port=free_port(), device="gpu")
    found = _what("devices", settings)
    if any("CUDA" in finding.said for finding in found if finding.state == "ok"):
        pytest.skip("no GPU is what this is about")
    assert Finding("warn", "devices", "GOVOR_DEVICE is gpu, and models run on the CPU") in found


TORCH = """
class version:
    cuda = "13.0"
class cuda:
    is_available = staticmethod(lambda: {seen})
    get_device_name = staticmethod(lambda: "A GPU")
"""


@pytest.mark.parametrize(
    ("version", "text", "expected"),
    [
        (
            "2.13.0+cpu",
            "raise AssertionError",  # nobody waits for it
            Finding(
                "ok", "devices", "trainings here run on the CPU: torch 2.13.0+cpu is a build for it"
            ),
        ),
        (
            "2.13.0",
            TORCH.format(seen=False),
            Finding("ok", "devices", "trainings here run on the CPU: torch 2.13.0 sees no GPU"),
        ),
        (
            "2.13.0",
            TORCH.format(seen=True),
            Finding("ok", "devices", "trainings can run on A GPU (torch 2.13.0)"),
        ),
        (
            "2.13.0",
            "raise ImportError('libcudart.so.13 is not there')",
            Finding(
                "warn",
                "devices",
                "torch 2.13.0 does not start: ImportError: libcudart.so.13 is not there",
            ),
        ),
    ],
)
def test_the_device_of_trainings_is_torchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, text: str, expected: Finding
) -> None:
    (tmp_path / "torch.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(installation, "_version", {"torch": version}.get)
    settings = Settings(var=tmp_path)
    assert list(installation.trainings(settings)) == [expected]
    asked = settings.model_copy(update={"device": "gpu"})
    [found] = installation.trainings(asked)
    assert found.state == ("ok" if "can run" in found.said else "warn")
    monkeypatch.setattr(installation, "_version", {}.get)
    assert list(installation.trainings(settings)) == []


def test_the_trainers_container_serves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOVOR_SERVICE", "trainer")
    settings = Settings(var=tmp_path, port=free_port(), metrics_port=free_port())
    [found] = _what("services", settings)
    assert found.state == "ok"


def test_a_broken_model_and_a_full_disk_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(var=tmp_path, port=free_port(), metrics_port=free_port())
    broken = settings.repository_folder / "nlu" / "2"
    broken.mkdir(parents=True)
    (broken / "manifest.json").write_text("{}")
    (broken.parent / "deployment.json").write_text('{"generation": 1, "champion": 2}')
    monkeypatch.setattr("shutil.disk_usage", lambda _: (10, 10, 0))
    wrong = [finding for finding in examine(settings) if finding.state == "fail"]
    assert {finding.what for finding in wrong} == {"models", "disk"}


def _doctor(var: Path, port: int, metrics: int) -> tuple[int, list[tuple[str, str, str]]]:
    """The exit status and the lines, as an operator gets them."""
    done = subprocess.run(
        [sys.executable, "-m", "services", "doctor"],
        cwd=HOME,
        env=os.environ
        | {"GOVOR_VAR": str(var), "GOVOR_PORT": str(port), "GOVOR_METRICS_PORT": str(metrics)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    lines = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(lines), done.stdout
    return done.returncode, [(one[1], one[2], one[3]) for one in lines if one]


def _what(what: str, settings: Settings) -> list[Finding]:
    return [finding for finding in examine(settings) if finding.what == what]
