"""pocketsphinx: the embedded default. Works offline on a bare install, on real speech.

The engine holds the GIL while it decodes, so it runs in worker processes, which hold the grammars
of one version. They are started afresh, not forked: a fork of a process with threads may hang.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from govor.batching import Batcher, Observe
from govor.errors import InternalError, Unavailable
from govor.repository import Version
from services.stt.backends import Heard, Samples
from services.stt.backends.sphinx_process import CANCELLED, CHUNK, READY

PROGRAM = "services.stt.backends.sphinx_process"
ROOT = Path(__file__).resolve().parents[3]
EXPERIMENTAL = ("ru",)
"""Languages that are read through the English acoustic model."""

_numbers = itertools.count()


@dataclass(eq=False, slots=True)
class _Job:
    domain: str
    samples: Samples
    number: int = field(default_factory=lambda: next(_numbers))
    cancelled: bool = False


class Sphinx:
    """A version in its worker processes; each utterance goes to the one with the least to do."""

    def __init__(
        self,
        version: Version,
        workers: int,
        max_queued: int,
        observe: Observe | None,
        count_chunk: Callable[[], object],
    ) -> None:
        self.domains: Sequence[str] = [name.removesuffix(".fsg") for name in version.names(".fsg")]
        experimental = set(version.manifest.languages) & set(EXPERIMENTAL)
        self.warnings: Sequence[str] = ["experimental_language"] if experimental else []
        self._workers = [
            _Worker(version, self.domains, max_queued // workers, observe, count_chunk)
            for _ in range(workers)
        ]
        for worker in self._workers:
            worker.wait_until_ready()

    @property
    def alive(self) -> bool:
        return all(worker.alive for worker in self._workers)

    async def recognise(self, samples: Samples, domain: str, deadline: float | None) -> Heard:
        worker = min(self._workers, key=lambda worker: worker.jobs)
        return await worker.recognise(_Job(domain, samples), deadline)

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class _Worker:
    """One process, the queue in front of it and the thread that talks to it."""

    def __init__(
        self,
        version: Version,
        domains: Sequence[str],
        max_queued: int,
        observe: Observe | None,
        count_chunk: Callable[[], object],
    ) -> None:
        self.jobs = 0
        self._arguments = [str(version.folder), *domains]
        self._count_chunk = count_chunk
        self._sending = threading.Lock()
        self._closed = False
        self._start()
        self._batcher = Batcher[_Job, Heard](
            self._run, name=version.model, max_batch=1, max_queued=max_queued, observe=observe
        )

    @property
    def alive(self) -> bool:
        return self._batcher.alive and not self._closed

    async def recognise(self, job: _Job, deadline: float | None) -> Heard:
        self.jobs += 1
        try:
            return await self._batcher.submit(job, deadline)
        except asyncio.CancelledError:
            self._cancel(job)
            raise
        finally:
            self.jobs -= 1

    def wait_until_ready(self) -> None:
        """Raises `RuntimeError` when the process cannot load the version."""
        try:
            if self._channel.recv() == READY:
                return
        except (EOFError, OSError):
            pass
        raise RuntimeError(f"a recogniser process ended with {self._process.wait()} while loading")

    def close(self) -> None:
        self._closed = True
        self._process.kill()
        self._process.wait()
        self._batcher.close()
        self._channel.close()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", PROGRAM, str(theirs.fileno()), *self._arguments],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is ours to act on
            )
        self._channel = Connection(ours.detach())

    def _run(self, jobs: list[_Job]) -> list[Heard]:
        """Runs in the batcher's thread. A process that dies is replaced, and asked once more."""
        for _ in range(2):
            try:
                return [self._ask(job) for job in jobs]
            except (EOFError, OSError):
                if self._closed:
                    break
                self._process.kill()
                self._process.wait()
                self._channel.close()
                self._start()
                self.wait_until_ready()
        raise Unavailable("the recogniser died over this audio", code="recogniser_died")

    def _ask(self, job: _Job) -> Heard:
        if job.cancelled:
            return Heard()
        with self._sending:
            self._channel.send((job.number, job.domain, job.samples.tobytes()))
        while (answer := self._channel.recv()) == CHUNK:
            self._count_chunk()
        if isinstance(answer, Heard):
            return answer
        if answer == CANCELLED:
            return Heard()
        raise InternalError(f"the recogniser failed: {answer}")

    def _cancel(self, job: _Job) -> None:
        job.cancelled = True
        with self._sending:
            try:
                self._channel.send(job.number)
            except OSError:
                return  # its process died, and the work with it
