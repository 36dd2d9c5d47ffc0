"""compose.yaml as text: what must hold for every entry, whoever adds one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from govor.routes import SERVICES
from services.gateway.settings import GatewaySettings
from tests.deploy.stack import HOME, engine_or_skip

COMPOSE = yaml.safe_load((HOME / "compose.yaml").read_text(encoding="utf-8"))
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
ONE_SHOTS = {"secrets", "init"}
# Images that hold one program: nothing in them could ask whether it works.
BARE = {"redis-exporter", "nginx-exporter", "node-exporter"}

every = pytest.mark.parametrize("name", CONTAINERS)


def test_all_parts_are_there() -> None:
    parts = {"nginx", "worker", "beat", "redis", "postgres", "prometheus", "alertmanager"}
    assert set(CONTAINERS) == {*SERVICES, *parts, "grafana", *BARE, *ONE_SHOTS}


def test_each_service_has_an_image_with_its_models() -> None:
    stages = re.findall(r"AS models-(\w+)$", (HOME / "Dockerfile").read_text(), re.MULTILINE)
    assert set(stages) == {*SERVICES, "trainer"}
    for name in SERVICES:
        assert CONTAINERS[name]["build"]["args"]["SERVICE"] == name


def test_only_nginx_is_published_and_on_loopback() -> None:
    published = {name: spec["ports"] for name, spec in CONTAINERS.items() if "ports" in spec}
    assert list(published) == ["nginx"]
    assert published["nginx"] == ["${GOVOR_ADDRESS:-127.0.0.1}:${GOVOR_PORT:-8080}:8080"]


@every
def test_it_is_fenced_in(name: str) -> None:
    spec = CONTAINERS[name]
    assert spec["read_only"] is True
    assert spec["cap_drop"] == ["ALL"]
    assert spec["security_opt"] == ["no-new-privileges:true"]
    assert spec["init"] is True
    assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(spec)
    limits = spec["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}


@every
def test_it_restarts_and_its_log_is_bounded(name: str) -> None:
    spec = CONTAINERS[name]
    assert spec["restart"] == ("on-failure:3" if name in ONE_SHOTS else "unless-stopped")
    assert set(spec["logging"]["options"]) == {"max-size", "max-file"}


@every
def test_its_start_is_gated_by_health(name: str) -> None:
    spec = CONTAINERS[name]
    for condition in spec.get("depends_on", {}).values():
        assert condition["condition"] in ("service_healthy", "service_completed_successfully")
    # Ours have one in the Dockerfile.
    assert name in BARE or "build" in spec or spec["healthcheck"]["test"]


@every
def test_no_password_stands_in_it(name: str) -> None:
    spec = CONTAINERS[name]
    for variable, value in spec.get("environment", {}).items():
        if re.search("PASSWORD|SECRET|TOKEN|_KEY|_URL", variable):
            assert variable.endswith("_FILE") or "@" not in value, variable
            assert variable.endswith(("_FILE", "_URL")), variable
    assert "requirepass" not in str(spec.get("command"))


@every
def test_what_it_is_told_is_a_setting(name: str) -> None:
    known = {f"GOVOR_{field.upper()}" for field in GatewaySettings.model_fields}
    told = {n for n in CONTAINERS[name].get("environment", {}) if n.startswith("GOVOR_")}
    assert told <= known


@every
def test_what_it_mounts_is_there(name: str) -> None:
    for mount in CONTAINERS[name].get("volumes", []):
        source = _source(mount)
        if source.startswith("."):
            assert (HOME / source).exists(), source
        else:
            assert source in COMPOSE["volumes"], source


@every
def test_a_path_that_an_operator_names_is_never_made_up(name: str) -> None:
    for mount in CONTAINERS[name].get("volumes", []):
        if "${" in str(mount):
            assert mount["bind"] == {"create_host_path": False}


def _source(mount: str | dict[str, Any]) -> str:
    source = mount["source"] if isinstance(mount, dict) else mount
    return re.sub(r"\$\{\w+:-(.*?)\}", r"\1", source).split(":")[0]


def test_every_variable_is_explained() -> None:
    used = set(re.findall(r"\$\{(\w+)", (HOME / "compose.yaml").read_text(encoding="utf-8")))
    example = (HOME / ".env.example").read_text(encoding="utf-8")
    assert used <= set(re.findall(r"^(\w+)=", example, re.MULTILINE))


@pytest.mark.docker
@pytest.mark.smoke
@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]])
@pytest.mark.parametrize("settings", [None, ".env.example"])
def test_compose_takes_it(files: list[str], settings: str | None) -> None:
    engine_or_skip()
    options = [part for file in files for part in ("-f", file)]
    options += ["--env-file", settings] if settings else []
    done = compose(HOME, *options, "config")
    whole = yaml.safe_load(done)
    assert set(whole["services"]) == set(CONTAINERS)
    if "compose.gpu.yaml" in files:
        reserved = {
            name
            for name, spec in whole["services"].items()
            if "devices" in spec["deploy"]["resources"].get("reservations", {})
        }
        assert reserved == {"stt", "nlu", "generator", "tts", "worker"}
        limits = whole["services"]["nlu"]["deploy"]["resources"]["limits"]
        assert (limits["cpus"], int(limits["memory"])) == (1, 4 << 30)


def compose(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["docker", "compose", *arguments], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "level=warning" not in done.stderr, done.stderr
    return done.stdout
