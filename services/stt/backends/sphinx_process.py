"""The worker process of `sphinx.py`: `python -m services.stt.backends.sphinx_process FD FOLDER
DOMAIN...` loads a version's domains and answers jobs over the socket `FD` until it closes.

In: `(number, domain, samples)`, or a number alone: that job is no longer wanted. Out: `READY`, then
for each job `CHUNK` before every piece of work, and at its end what was heard, `CANCELLED`, or the
text of an error.
"""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from services.stt.backends import Heard
from services.stt.backends.sphinx_passes import Passes

READY, CHUNK, CANCELLED = "ready", "chunk", "cancelled"


class _Cancelled(Exception):
    pass


def main(channel: Connection, folder: Path, domains: list[str]) -> None:
    passes = {domain: Passes(folder, domain) for domain in domains}
    channel.send(READY)
    while True:
        message = channel.recv()
        if isinstance(message, int):  # its job has ended in the meantime
            continue
        number, domain, samples = message
        channel.send(_answer(passes[domain], samples, partial(_chunk, channel, number)))


def _answer(passes: Passes, samples: bytes, chunk: partial[None]) -> Heard | str:
    try:
        return passes.recognise(np.frombuffer(samples, np.float32), chunk)
    except _Cancelled:
        return CANCELLED
    except (RuntimeError, ValueError) as error:
        return str(error) or type(error).__name__


def _chunk(channel: Connection, number: int) -> None:
    """Reports a piece of work that begins. Raises `_Cancelled` when nobody wants it."""
    while channel.poll():
        if channel.recv() == number:
            raise _Cancelled
    channel.send(CHUNK)


if __name__ == "__main__":
    # The socket closes with the service.
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        main(Connection(int(sys.argv[1])), Path(sys.argv[2]), sys.argv[3:])
