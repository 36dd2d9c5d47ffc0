"""`python -m trainer.child FD`: the process that trains one job, and ends.

It talks with its worker (`trainer.process`) over a socket, a JSON object a line. What it prints is
the job's log. It ends with its worker, whatever that died of.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from govor import logs
from govor.config import Settings
from trainer.context import NotOurs, Task
from trainer.recipes import Entry, load

_PR_SET_PDEATHSIG = 1


class Link:
    """The recipe's `Context`: the worker at the other end of the socket."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._folder = Path()
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def folder(self) -> Path:
        return self._folder

    def order(self) -> tuple[Entry, Task]:
        """What is to be run: an entry of the recipes, and its task."""
        order = self._heard.get()
        self._folder = Path(order["folder"])
        entry, task = Entry(**order["entry"]), order["task"]
        device, reason = _device(order["queue"], task["recipe"], entry)
        self.send({"device": device, "reason": reason})
        return entry, Task(**task | {"device": device})

    def progress(
        self,
        step: str,
        *,
        done: float | None = None,
        epoch: int | None = None,
        epochs: int | None = None,
        loss: float | None = None,
    ) -> None:
        told = {"step": step, "done": done, "epoch": epoch, "epochs": epochs, "loss": loss}
        with contextlib.suppress(OSError, ValueError):
            self.send({"progress": told})

    def log(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.send({"log": line})

    def commit(self) -> None:
        self.send({"commit": True})
        if (refused := self._heard.get()["refused"]) is not None:
            raise NotOurs(refused)

    def send(self, message: dict[str, Any]) -> None:
        line = to_json(message, inf_nan_mode="null") + b"\n"
        with self._lock:
            self._channel.sendall(line)

    def _listen(self) -> None:
        with self._channel.makefile("rb") as lines:
            for line in lines:
                self._heard.put(json.loads(line))
        os.killpg(0, signal.SIGKILL)  # the worker is gone: so are we, with all that we started


def main(descriptor: int) -> int:
    _be_the_first_to_go()
    settings = Settings()
    logs.configure(settings)
    os.set_inheritable(descriptor, False)
    link = Link(socket.socket(fileno=descriptor))
    entry, task = link.order()
    try:
        link.send({"result": load(entry.run)(task, link)})
    except NotOurs:
        pass  # its worker said so
    except BaseException as error:
        traceback.print_exc()
        link.send({"error": _words(error)})
        return 1
    return 0


def _be_the_first_to_go() -> None:
    """Dies with its worker, for want of memory before it, and lets those who serve go first.

    The kernel's signal follows the death of the thread that started this process, which lives as
    long as its worker does. Where there is no such signal, the end of the socket does it.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    os.nice(10)


def _device(asked: str, recipe: str, entry: Entry) -> tuple[str, str | None]:
    """Where to train, and why not on the GPU that was asked for."""
    if asked != "gpu":
        return "cpu", None
    if not entry.gpu:
        return "cpu", f"the recipe {recipe} trains on the CPU"
    try:
        import torch
    except ImportError:
        return "cpu", "torch is not installed"
    if torch.version.cuda is None:
        return "cpu", f"torch {torch.__version__} is a build for the CPU"
    return ("cuda", None) if torch.cuda.is_available() else ("cpu", "torch sees no GPU")


def _words(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:1000]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
