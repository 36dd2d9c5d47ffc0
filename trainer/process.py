"""The worker's end of a process that trains (`trainer.child`): messages, output, and its death."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 16


class Child:
    """A process in a session and a group of its own. `ended` once it has closed the socket."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made, and holds what the process writes to its temporary folder."""
        temporary = folder / "tmp"
        temporary.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._channel, theirs = socket.socketpair()
        # While kombu closes a lost connection the process has a default timeout (`collect`); a
        # socket made in that moment would not wait, and its reader take that for the end.
        self._channel.setblocking(True)
        theirs.setblocking(True)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=os.environ | {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
            )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._channel, selectors.EVENT_READ, _Lines())
        self._printed = _Lines()
        self._selector.register(self._output, selectors.EVENT_READ, self._printed)
        self.ended = False

    def send(self, message: dict[str, Any]) -> None:
        """Says something to a process that may have ended."""
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def hear(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What the process says, and prints (`{"log": line}`), within `seconds` if it does."""
        for key, _ in self._selector.select(max(0.0, seconds)):
            chunk = _read(key.fd)
            messages = key.fileobj is self._channel
            if not chunk:
                self._selector.unregister(key.fileobj)
                self.ended = self.ended or messages
            for line in key.data.split(chunk):
                yield json.loads(line) if messages else {"log": line.decode(errors="replace")}

    def kill(self) -> tuple[int, list[str]]:
        """Ends the whole group. The status the process ended with, and what it had yet to print."""
        if self.ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1.0)  # between its last word and its status
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        # What left the group still holds the pipe, and might never close it.
        os.set_blocking(self._output.fileno(), False)
        with self._channel, self._output, self._selector:
            rest = self._printed.begun + (self._output.read() or b"")
        return status, rest.decode(errors="replace").splitlines()


class _Lines:
    """Puts lines together again that arrive in pieces; `begun` is one that lacks its end."""

    def __init__(self) -> None:
        self.begun = b""

    def split(self, chunk: bytes) -> list[bytes]:
        *whole, self.begun = (self.begun + chunk).split(b"\n")
        return whole


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except ConnectionResetError:
        return b""
