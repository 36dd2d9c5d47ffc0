"""One service as a process of its own, for as long as a benchmark needs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from govor.config import Settings
from govor.database import migrate


@dataclass(frozen=True)
class Alone:
    """A service that runs: where, as which process, and how long it took to get ready."""

    url: str
    pid: int
    ready_seconds: float


@contextmanager
def service(
    name: str, core: int | None = None, ready: str = "readyz", key: str | None = None
) -> Iterator[Alone]:
    """The service, pinned to `core` if there is one, once the path `ready` answers 200; who calls
    gives `key` if there is one.

    Raises `RuntimeError` when it does not.
    """
    with socket.socket() as probe, tempfile.TemporaryDirectory() as var:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        migrate(Settings(var=Path(var)).database)
        keys = {}
        if key is not None:
            keys["GOVOR_KEYS_FILE"] = f"{var}/keys"
            Path(keys["GOVOR_KEYS_FILE"]).write_text(f"bench speak {key}\n")
        since = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "services", name],
            env=os.environ
            | {"GOVOR_VAR": var, "GOVOR_PORT": str(port), "GOVOR_METRICS_PORT": "0"}
            | {"GOVOR_RATE_LIMIT_PER_MINUTE": "0", "GOVOR_LOG_LEVEL": "WARNING"}
            | keys,
            stdout=subprocess.DEVNULL,
        )
        try:
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            url = f"http://127.0.0.1:{port}"
            _await(f"{url}/{ready}", process)
            yield Alone(url, process.pid, time.monotonic() - since)
        finally:
            process.terminate()
            process.wait(20)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if process.poll() is not None:
            break
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.01)
    raise RuntimeError("the service did not become ready")
