"""govor/batching.py"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from govor.batching import Batcher
from govor.errors import DeadlineExceeded, Overloaded, Unavailable
from tests.core.waiting import PATIENCE_SECONDS


class Gate:
    """A model that holds each batch until it is let through, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.open = threading.Event()
        self.entered = threading.Event()

    def __call__(self, items: list[str]) -> Sequence[str]:
        self.batches.append(items)
        self.entered.set()
        assert self.open.wait(PATIENCE_SECONDS)
        return [item.upper() for item in items]


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.wait, PATIENCE_SECONDS)


async def test_a_lone_request_starts_at_once() -> None:
    batcher = Batcher[str, str](lambda items: items, name="t")
    assert await batcher.submit("a") == "a"
    batcher.close()


async def test_what_waits_is_sorted_by_length_and_cut_into_batches() -> None:
    gate = Gate()
    batcher = Batcher[str, str](gate, name="t", max_batch=2, length=len)
    first = asyncio.ensure_future(batcher.submit("x"))
    await entered(gate)
    rest = [asyncio.ensure_future(batcher.submit(item)) for item in ("dddd", "a", "ccc", "bb")]
    await asyncio.sleep(0)
    gate.open.set()
    assert await asyncio.gather(first, *rest) == ["X", "DDDD", "A", "CCC", "BB"]
    assert gate.batches == [["x"], ["a", "bb"], ["ccc", "dddd"]]
    batcher.close()


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    gate = Gate()
    batcher = Batcher[str, str](gate, name="t", max_queued=2)
    running = asyncio.ensure_future(batcher.submit("x"))
    await entered(gate)
    waiting = [asyncio.ensure_future(batcher.submit(item)) for item in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await batcher.submit("c")
    assert refused.value.retry_after
    gate.open.set()
    assert await asyncio.gather(running, *waiting) == ["X", "A", "B"]
    batcher.close()


async def test_late_and_cancelled_requests_never_reach_the_model() -> None:
    gate = Gate()
    batcher = Batcher[str, str](gate, name="t")
    running = asyncio.ensure_future(batcher.submit("x"))
    await entered(gate)
    late = asyncio.ensure_future(batcher.submit("late", time.monotonic() - 1))
    gone = asyncio.ensure_future(batcher.submit("gone"))
    kept = asyncio.ensure_future(batcher.submit("kept", time.monotonic() + PATIENCE_SECONDS))
    await asyncio.sleep(0)
    gone.cancel()
    gate.open.set()
    assert await running == "X"
    assert await kept == "KEPT"
    with pytest.raises(DeadlineExceeded):
        await late
    assert gate.batches == [["x"], ["kept"]]
    batcher.close()


async def test_an_error_goes_to_its_batch_alone() -> None:
    def run(items: list[str]) -> Sequence[str]:
        if "bad" in items:
            raise ValueError("bad")
        return items

    batcher = Batcher[str, str](run, name="t", max_batch=1)
    with pytest.raises(ValueError, match="bad"):
        await batcher.submit("bad")
    assert await batcher.submit("good") == "good"
    batcher.close()


async def test_close_answers_what_waits_and_refuses_what_comes() -> None:
    gate = Gate()
    batcher = Batcher[str, str](gate, name="t")
    tasks = [asyncio.ensure_future(batcher.submit(item)) for item in "abc"]
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.to_thread(batcher.close)
    assert await asyncio.gather(*tasks) == ["A", "B", "C"]
    with pytest.raises(Unavailable):
        await batcher.submit("d")


async def test_the_waits_of_those_who_gave_up_are_observed() -> None:
    gate, seen = Gate(), list[tuple[int, Sequence[float]]]()

    def observe(size: int, waits: Sequence[float], run_seconds: float) -> None:
        seen.append((size, waits))

    batcher = Batcher[str, str](gate, name="t", max_batch=2, observe=observe)
    running = asyncio.ensure_future(batcher.submit("x"))
    await entered(gate)
    late = asyncio.ensure_future(batcher.submit("late", time.monotonic() - 1))
    gone = asyncio.ensure_future(batcher.submit("gone"))
    kept = asyncio.ensure_future(batcher.submit("kept"))
    await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    gone.cancel()
    gate.open.set()
    await asyncio.gather(running, late, gone, kept, return_exceptions=True)
    await asyncio.to_thread(batcher.close)
    assert [(size, len(waits)) for size, waits in seen] == [(1, 1), (0, 2), (1, 1)]
    assert min(min(waits) for _, waits in seen[1:]) >= 0.04


async def test_batches_are_observed() -> None:
    seen: list[tuple[int, int]] = []

    def observe(size: int, waits: Sequence[float], run_seconds: float) -> None:
        assert run_seconds >= 0
        seen.append((size, len(waits)))

    batcher = Batcher[str, str](lambda items: items, name="t", observe=observe)
    assert await batcher.submit_many(["a", "b"]) == ["a", "b"]
    batcher.close()
    assert seen == [(2, 2)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_a_worker_that_dies_leaves_nobody_waiting() -> None:
    gate = Gate()

    def die(items: list[str]) -> Sequence[str]:
        gate(items)
        raise SystemExit

    batcher = Batcher[str, str](die, name="t")
    running = asyncio.ensure_future(batcher.submit("x"))
    await entered(gate)
    waiting = asyncio.ensure_future(batcher.submit("a"))
    await asyncio.sleep(0)
    gate.open.set()
    for task in (running, waiting):
        with pytest.raises(Unavailable):
            await asyncio.wait_for(task, PATIENCE_SECONDS)
    batcher.close()
    assert not batcher.alive


async def test_any_exception_of_the_model_reaches_who_waits() -> None:
    def stop(items: list[str]) -> Sequence[str]:
        raise StopIteration

    batcher = Batcher[str, str](stop, name="t")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(batcher.submit("a"), PATIENCE_SECONDS)
    batcher.close()
