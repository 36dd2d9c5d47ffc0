"""The same turns through one process and through five services on five ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from govor.clients import events
from govor.database import migrate
from govor.routes import ROUTES, SERVICES
from tests.e2e.conftest import HOME, PATIENT, Govor, wait_until_ready
from tests.e2e.malformed import SPEECH

pytestmark = pytest.mark.timeout(900)  # five processes, one after the other

TURNS: dict[str, dict[str, Any]] = {
    "typed, English": {"json": {"text": "what do the stars say for leo tomorrow", "seed": 7}},
    "typed, Russian": {"json": {"text": "гороскоп для льва на завтра", "seed": 7}},
    "typed, with speech": {"json": {"text": "hello", "seed": 7, "reply": ["text", "audio"]}},
    "spoken": {"files": {"audio": ("a.flac", SPEECH, "audio/flac")}, "data": {"seed": "7"}},
    "silent": {"json": {"text": "", "seed": 7}},
}


@contextmanager
def service(name: str, settings: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """One service as a process of its own, on a port that it takes; its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "services", name],
        cwd=HOME,
        env=os.environ | PATIENT | settings,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        assert line.startswith(f"Govor {name} is ready: "), line
        yield line.split()[-1], process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()


@pytest.fixture(scope="module")
def apart(govor: Govor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Five processes that share a folder, as five containers would; their URLs by name."""
    var: Path = tmp_path_factory.mktemp("apart")
    migrate(f"sqlite:///{var / 'govor.db'}")
    shared = {
        "GOVOR_VAR": str(var),
        "GOVOR_PORT": "0",
        "GOVOR_METRICS_PORT": "0",
        "GOVOR_LOG_LEVEL": "WARNING",
    }
    urls: dict[str, str] = {}
    with ExitStack() as processes:
        for name in SERVICES:
            siblings = {f"GOVOR_GATEWAY_{one.upper()}_URL": url for one, url in urls.items()}
            urls[name], process = processes.enter_context(service(name, shared | siblings))
        wait_until_ready(urls["gateway"], process)
        yield urls


def told(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn without what differs from one to the next: ids, timings, and flite's noise (it draws
    the hiss of its consonants from one random sequence a process)."""
    kept: dict[str, Any] = json.loads(json.dumps(turn), object_hook=_lasting)
    return kept


def _lasting(value: dict[str, Any]) -> dict[str, Any]:
    passing = ("id", "turn_id", "conversation_id", "timings")
    kept = {key: each for key, each in value.items() if key not in passing}
    return kept | {"audio": len(kept["audio"])} if kept.get("audio") else kept


def answered(url: str, turn: str) -> dict[str, Any]:
    """The first of ten turns that is not degraded: a busy machine's database may be late."""
    for _ in range(10):
        answer = httpx.post(f"{url}/v1/converse", timeout=120, **TURNS[turn])
        assert answer.status_code == 200, answer.text
        one = told(answer.json())
        if not one["degraded"]:
            break
    return one


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_is_the_same_in_both(govor: Govor, apart: dict[str, str], turn: str) -> None:
    one, five = (answered(url, turn) for url in (govor.url, apart["gateway"]))
    assert one["degraded"] == []
    assert one == five


async def test_its_events_are_the_same_in_both(govor: Govor, apart: dict[str, str]) -> None:
    body = {"text": "what do the stars say for leo tomorrow", "seed": 7, "reply": ["text", "audio"]}
    heard = []
    for url in (govor.url, apart["gateway"]):
        headers = {"accept": "text/event-stream"}
        async with (
            httpx.AsyncClient(timeout=120) as http,
            http.stream("POST", f"{url}/v1/converse", json=body, headers=headers) as answer,
        ):
            names = [name async for name, _ in events(answer)]
        assert names[-1] == "done"
        assert "audio.delta" in names
        # Speech is made while the text is written: which comes first is nobody's promise.
        heard.append([name for name in names if name != "audio.delta"])
    assert heard[0] == heard[1]


def test_a_verb_is_answered_by_its_service_in_both(govor: Govor, apart: dict[str, str]) -> None:
    body = {"text": "what do the stars say for leo tomorrow"}
    one, five = (
        httpx.post(f"{url}/v1/understand", json=body, timeout=120)
        for url in (govor.url, apart[ROUTES["/v1/understand"]])
    )
    assert told(one.json()) == told(five.json())
    assert one.headers["x-model-version"] == five.headers["x-model-version"]
    elsewhere = httpx.post(f"{apart['gateway']}/v1/understand", json=body, timeout=120)
    assert elsewhere.status_code == 404
