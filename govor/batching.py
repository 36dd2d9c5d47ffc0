"""The queue in front of a model, and the batches that it is read in.

Greedy: the worker thread takes what is waiting as soon as it is free, so a lone request starts at
once and batches grow by themselves under load. What waits is handed over in one piece a drain and
sorted by length, which wastes the least padding (measured: +23 % throughput at 8 clients and +42 %
at 64 against one hand-over a request).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from govor.errors import DeadlineExceeded, Overloaded, Unavailable

Item = TypeVar("Item")
Output = TypeVar("Output")


class Observe(Protocol):
    """Told of each batch: its size, the waits until it formed and the run time, in seconds. Those
    who gave up waited, too: there may be more waits than items, and no item at all."""

    def __call__(self, size: int, waits: Sequence[float], run_seconds: float) -> None: ...


@dataclass(slots=True)
class _Waiting(Generic[Item, Output]):
    item: Item
    length: int
    future: asyncio.Future[Output]
    deadline: float | None
    since: float


class Batcher(Generic[Item, Output]):
    """One worker thread that runs a model on what waits for it.

    `run` takes up to `max_batch` items and returns as many outputs, in the same order; an exception
    out of it goes to every request of the batch, and the next batch is tried as usual. `submit`
    belongs to one event loop.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Output]],
        *,
        name: str,
        max_batch: int = 32,
        max_queued: int = 512,
        length: Callable[[Item], int] = lambda _: 0,
        observe: Observe | None = None,
    ) -> None:
        self._run = run
        self._length = length
        self._observe = observe
        self.max_batch = max_batch
        self.max_queued = max_queued
        self._queue: list[_Waiting[Item, Output]] = []
        self._drained = 0
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def __len__(self) -> int:
        """How many requests wait; those in the running batch are not counted."""
        return len(self._queue) + self._drained

    async def submit(self, item: Item, deadline: float | None = None) -> Output:
        """The output for one item. `deadline` is a `time.monotonic()` value.

        Raises `Overloaded` (`queue_full`) at once when `max_queued` requests wait,
        `DeadlineExceeded` when the deadline passed before the item's batch formed, `Unavailable`
        when the worker is gone. A cancelled wait is dropped when its batch would form.
        """
        return await self._enqueue([item], deadline)[0]

    async def submit_many(
        self, items: Sequence[Item], deadline: float | None = None
    ) -> list[Output]:
        """The outputs for several items of one request, which count one by one in the queue."""
        return list(await asyncio.gather(*self._enqueue(items, deadline)))

    def close(self) -> None:
        """Runs what waits, then ends the thread."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _enqueue(
        self, items: Sequence[Item], deadline: float | None
    ) -> list[asyncio.Future[Output]]:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        waiting = [
            _Waiting(item, self._length(item), loop.create_future(), deadline, now)
            for item in items
        ]
        with self._wake:
            if self._closed or not self.alive:
                raise _ended()
            if len(self) + len(waiting) > max(self.max_queued, len(waiting)):
                raise Overloaded(f"{self.max_queued} requests are waiting", code="queue_full")
            self._queue.extend(waiting)
            self._wake.notify()
        return [entry.future for entry in waiting]

    def _work(self) -> None:
        drained: list[_Waiting[Item, Output]] = []
        try:
            while drained := self._drain():
                for start in range(0, len(drained), self.max_batch):
                    self._drained = max(0, len(drained) - start - self.max_batch)
                    self._answer(drained[start : start + self.max_batch])
        finally:  # a worker that dies leaves nobody waiting
            with self._wake:
                self._closed = True
                left, self._queue = self._queue, []
            _deliver([(entry, None, _ended()) for entry in (*drained, *left)])

    def _drain(self) -> list[_Waiting[Item, Output]]:
        """All that waits, sorted by length; nothing once closed and empty."""
        with self._wake:
            while not self._queue and not self._closed:
                self._wake.wait()
            drained, self._queue = self._queue, []
            self._drained = len(drained)
        return sorted(drained, key=lambda entry: entry.length)

    def _answer(self, entries: list[_Waiting[Item, Output]]) -> None:
        formed = time.monotonic()
        batch = []
        answers: list[tuple[_Waiting[Item, Output], Output | None, Exception | None]] = []
        for entry in entries:
            if entry.future.cancelled():
                continue
            if entry.deadline is not None and entry.deadline < formed:
                late = DeadlineExceeded("the deadline passed while the request waited")
                answers.append((entry, None, late))
            else:
                batch.append(entry)
        if batch:
            try:
                outputs = self._run([entry.item for entry in batch])
                answers += [(e, out, None) for e, out in zip(batch, outputs, strict=True)]
            except Exception as error:
                if isinstance(error, StopIteration):  # which no future takes
                    error = RuntimeError("the model raised StopIteration")
                answers += [(entry, None, error) for entry in batch]
        if self._observe is not None:
            waits = [formed - entry.since for entry in entries]
            self._observe(len(batch), waits, time.monotonic() - formed)
        _deliver(answers)


def _ended() -> Unavailable:
    return Unavailable("the model's worker has ended", code="model_unavailable")


def _deliver(answers: list[tuple[Any, Any, Exception | None]]) -> None:
    """Hands a batch's answers to their event loop in one call."""

    def settle() -> None:
        for entry, output, error in answers:
            if entry.future.done():
                continue
            if error is not None:
                entry.future.set_exception(error)
            else:
                entry.future.set_result(output)

    if answers:
        try:
            answers[0][0].future.get_loop().call_soon_threadsafe(settle)
        except RuntimeError:  # the loop has ended, and with it everybody who waited
            return
