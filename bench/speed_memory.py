"""Each service alone: how soon it is ready, and the memory of its process tree.

Memory is the proportional set size (Linux, `/proc/<pid>/smaps_rollup`): pages that processes share
are divided among them, so the sum over a tree counts every page once.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from govor.config import Settings

# Megabytes; seconds.
MEMORY = {"nlu": 180, "gateway": 180, "generator": 220, "tts": 220, "stt": 400}
READY = 3.0


def main(arguments: list[str]) -> int:
    """Prints a row a service; 1 when a bar is missed."""
    missed = 0
    print(f"{'service':<10} {'ready s':>8} {'bar':>5} {'PSS MB':>8} {'bar':>5}")
    for service, bar in MEMORY.items():
        seconds, megabytes = measure(service)
        missed += seconds > READY or megabytes > bar
        print(f"{service:<10} {seconds:>8.2f} {READY:>5.1f} {megabytes:>8.0f} {bar:>5}")
    return 1 if missed else 0


def measure(service: str) -> tuple[float, float]:
    """Seconds from the start of the process to `/readyz` 200, and its tree's megabytes then."""
    port = _free_port()
    with tempfile.TemporaryDirectory() as var:
        environment = {
            **os.environ,
            "GOVOR_VAR": var,
            "GOVOR_PORT": str(port),
            "GOVOR_METRICS_PORT": "0",
            "GOVOR_LOG_LEVEL": "WARNING",
        }
        _migrate(Path(var))
        since = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "services", service], env=environment)
        try:
            # The gateway alone has no siblings to be ready; it answers when it can degrade.
            path = "healthz" if service == "gateway" else "readyz"
            _await(f"http://127.0.0.1:{port}/{path}", process)
            seconds = time.monotonic() - since
            return seconds, tree_megabytes(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def tree_megabytes(pid: int) -> float:
    """Proportional set size of a process and all its descendants, in 10^6 bytes."""
    own = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            own = int(line.split()[1]) * 1024
    children = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [int(child) for file in children for child in file.read_text().split()]
    return own / 1e6 + sum(tree_megabytes(child) for child in pids)


def _migrate(var: Path) -> None:
    from govor.database import migrate

    migrate(Settings(var=var).database)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(3000):
        if process.poll() is not None:
            raise RuntimeError(f"the service ended with status {process.returncode}")
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.01)
    raise RuntimeError(f"{url} did not become ready")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
