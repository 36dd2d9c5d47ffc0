"""One service as a process of its own, pinned to one core, for as long as a benchmark needs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from govor.config import Settings
from govor.database import migrate


@contextmanager
def service(name: str, core: int) -> Iterator[str]:
    """Its URL once it is ready. Raises `RuntimeError` when it does not become so."""
    with socket.socket() as probe, tempfile.TemporaryDirectory() as var:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        migrate(Settings(var=Path(var)).database)
        process = subprocess.Popen(
            [sys.executable, "-m", "services", name],
            env=os.environ
            | {"GOVOR_VAR": var, "GOVOR_PORT": str(port), "GOVOR_METRICS_PORT": "0"}
            | {"GOVOR_RATE_LIMIT_PER_MINUTE": "0", "GOVOR_LOG_LEVEL": "WARNING"},
            stdout=subprocess.DEVNULL,
        )
        try:
            os.sched_setaffinity(process.pid, {core})
            url = f"http://127.0.0.1:{port}"
            _await_ready(f"{url}/readyz", process)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def _await_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1000):
        if process.poll() is not None:
            break
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise RuntimeError("the service did not become ready")
