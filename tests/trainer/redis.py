"""A real redis-server on a port of its own, which can be killed and comes back."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Redis:
    """Keeps what it has in an append-only file, as the stack's does."""

    def __init__(self, folder: Path) -> None:
        # Held for as long as this is, also while the server is down: nobody else is given it.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port = int(self._place.getsockname()[1])
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        options = "--save '' --appendonly yes --maxmemory-policy noeviction --bind 127.0.0.1"
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--dir", str(self.folder)]
            + [word.strip("'") for word in options.split()],
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while self.ask("ping") != "PONG":
            assert self._process.poll() is None, "redis-server has ended"
            assert time.monotonic() < until, "redis-server does not start"
            time.sleep(0.05)

    def ask(self, *command: str) -> str:
        """What the server answers; nothing when it is not there."""
        asked = ["redis-cli", "-p", str(self.port), *command]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._place.close()


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    """A server; the test is skipped when none is installed, and with CI=true fails."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Redis is missing: apt-get install redis-server")
        pytest.skip("Redis is not installed (apt-get install redis-server)")
    server = Redis(folder)
    try:
        yield server
    finally:
        server.close()
