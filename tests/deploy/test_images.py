"""The images: small enough, without what only a build needs, and able to work locked up."""

from __future__ import annotations

import json
import os
import shlex
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from govor.routes import SERVICES
from tests.deploy.inside import users, written
from tests.deploy.stack import HOME, engine, engine_or_skip

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

# MB of 10^6 bytes, as `docker images` shows them.
LARGEST = {"nlu": 450, "generator": 450, "stt": 600, "tts": 600, "gateway": 450}
MODELS = {
    "stt": {"stt-en", "stt-ru", "vad"},
    "nlu": {"nlu"},
    "generator": {"generator"},
    "tts": {"tts-en", "tts-ru"},
}
LOCKED = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true")


@pytest.fixture(scope="module", params=[*SERVICES, "trainer"])
def service(request: pytest.FixtureRequest) -> str:
    engine_or_skip()
    return str(request.param)


@pytest.fixture(scope="module")
def image(service: str) -> str:
    """The id of the image, built (or found in the cache of builds)."""
    told = {  # as in compose.yaml
        "SERVICE": service,
        "DEVICE": "cpu",
        "PIP_EXTRA_INDEX_URL": os.environ.get("PIP_EXTRA_INDEX_URL", ""),
    }
    arguments = [
        part for name, value in told.items() for part in ("--build-arg", f"{name}={value}")
    ]
    wheels = f"wheels={os.environ.get('WHEELS', HOME / 'wheels')}"
    return engine("build", "--quiet", *arguments, "--build-context", wheels, str(HOME)).strip()


def inspect(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine("image", "inspect", image))[0]
    return found


def inside(image: str, script: str) -> str:
    return engine("run", "--rm", *LOCKED, "--network", "none", image, "sh", "-c", script)


def test_it_is_small(service: str, image: str, story: list[tuple[str, str]]) -> None:
    size = inspect(image)["Size"] / 1e6
    story.append((f"image of {service}", f"{size:.0f} MB"))
    if service in LARGEST:
        assert size <= LARGEST[service]


def test_it_runs_as_nobody_and_says_how_it_is(image: str) -> None:
    config = inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert "ORT_DISABLE_TELEMETRY=1" in config["Env"]
    assert not [variable for variable in config["Env"] if "wheel" in variable.lower()]


def test_what_only_a_build_needs_is_not_there(image: str) -> None:
    found = inside(
        image,
        "command -v cc gcc g++ ld make; ls -A /root/.cache /wheels /src 2>/dev/null;"
        " find / -xdev -name '*.whl' -path '*cache*' 2>/dev/null; true",
    )
    assert found == ""


def test_it_holds_the_models_that_it_serves(service: str, image: str) -> None:
    bundled = {path.name for path in (HOME / "models").iterdir() if path.is_dir()}
    found = set(inside(image, "ls /app/models").split())
    assert found == MODELS.get(service, bundled)


def test_torch_is_the_trainers(service: str, image: str) -> None:
    script = "import importlib.util as u; print(u.find_spec('torch') is not None)"
    assert inside(image, f'python -c "{script}"').strip() == str(service == "trainer")


def test_nobody_can_write_the_code(image: str) -> None:
    writable = inside(image, "find /app /opt/venv -writable 2>/dev/null; true")
    assert writable == ""


@contextmanager
def started(image: str) -> Iterator[str]:
    """A container that runs the image's own command alone, with a database, locked up; its name."""
    name = f"govor-test-{uuid.uuid4().hex[:8]}"
    folders = ("--tmpfs", "/tmp", "--tmpfs", "/var/lib/govor:uid=10001")
    command = "python -m services init && exec " + shlex.join(inspect(image)["Config"]["Cmd"])
    alone = ("--network", "none", "--init", "--env", "GOVOR_HOST=127.0.0.1")
    engine("run", "--detach", "--name", name, *LOCKED, *folders, *alone, image, "sh", "-c", command)
    try:
        yield name
    finally:
        engine("rm", "--force", name)


def test_it_works_locked_up(service: str, image: str) -> None:
    if service == "gateway":
        return  # ready only among the others: tests/deploy/test_stack.py
    with started(image) as container:
        end = time.monotonic() + 300
        state = ""
        while state != "healthy" and time.monotonic() < end:
            time.sleep(0.5)
            state = engine("inspect", "--format", "{{.State.Health.Status}}", container).strip()
        assert state == "healthy", engine("logs", container)
        assert users(container) == {10001}
        assert written(container) == []
