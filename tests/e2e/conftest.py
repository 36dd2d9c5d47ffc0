"""Govor as `make run` starts it: all services in one process, with the bundled models."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

HOME = Path(__file__).resolve().parents[2]
MODELS = ("generator", "nlu", "stt-en", "stt-ru", "tts-en", "tts-ru")
# A busy machine may be slow: no turn is cut short or degraded for that.
PATIENT = {
    "GOVOR_DEFAULT_TIMEOUT_SECONDS": "100",
    **{
        f"GOVOR_GATEWAY_{name}_TIMEOUT_SECONDS": "60" for name in ("STT", "NLU", "GENERATOR", "TTS")
    },
}
_HELD: list[socket.socket] = []


@dataclass(frozen=True)
class Govor:
    """A running process: its public door, and where its metrics are."""

    url: str
    metrics: str

    def counter(self, name: str) -> float:
        """The sum of a counter over its labels."""
        text = httpx.get(self.metrics, trust_env=False, timeout=60).text
        families = text_string_to_metric_families(text)
        return sum(s.value for f in families for s in f.samples if s.name == name)


def free_port() -> int:
    """A port for a server that starts later, or for none. It is held, so that nobody is given it
    meanwhile: a server that names it may listen there all the same (SO_REUSEADDR, on Linux)."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    _HELD.append(holder)
    return int(holder.getsockname()[1])


@pytest.fixture(scope="session")
def govor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Govor]:
    missing = [name for name in MODELS if not (HOME / "models" / name).is_dir()]
    if missing:
        pytest.skip(f"models/ lacks {', '.join(missing)}: make models")
    port, metrics = free_port(), free_port()
    settings = {
        "GOVOR_VAR": str(tmp_path_factory.mktemp("var")),
        "GOVOR_PORT": str(port),
        "GOVOR_METRICS_PORT": str(metrics),
        "GOVOR_RATE_LIMIT_PER_MINUTE": "0",
        "GOVOR_LOG_LEVEL": "WARNING",
        "GOVOR_TRAINER_EMBEDDED": "false",  # it would take its share of the cores
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "services"],
        cwd=HOME,
        env=os.environ | PATIENT | settings,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield Govor(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], seconds: float = 180) -> None:
    until = time.monotonic() + seconds
    answer = "no answer"
    while time.monotonic() < until:
        assert process.poll() is None, f"the services ended with status {process.returncode}"
        try:
            ready = httpx.get(f"{url}/readyz", trust_env=False, timeout=5)
        except httpx.TransportError:
            pass
        else:
            if ready.status_code == 200:
                return
            answer = ready.text
        time.sleep(0.05)
    raise AssertionError(f"not ready after {seconds:g} s: {answer}")


@pytest.fixture
async def door(govor: Govor) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=govor.url, timeout=120, trust_env=False) as client:
        yield client
