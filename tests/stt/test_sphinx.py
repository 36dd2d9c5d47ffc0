"""services/stt/backends/sphinx.py: the worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from govor.errors import DeadlineExceeded, Overloaded
from govor.repository import Version
from services.stt.backends import Backend, load
from tests.stt.conftest import SENTENCES, Speak, noise


class Chunks:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
async def chunks() -> Chunks:
    return Chunks()


@pytest.fixture
async def backend(version: Version, chunks: Chunks) -> AsyncIterator[Backend]:
    backend = load(version, workers=2, max_queued=4, count_chunk=chunks)
    yield backend
    backend.close()


def children() -> set[int]:
    found = " ".join(p.read_text() for p in Path("/proc/self/task").glob("*/children"))
    return {int(pid) for pid in found.split() if b"sphinx_process" in command_of(pid)}


def command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has just ended
        return b""


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():
            await asyncio.sleep(0.005)


async def test_several_are_heard_at_once(backend: Backend, speak: Speak) -> None:
    assert (list(backend.domains), list(backend.warnings)) == (["few"], [])
    heard = await asyncio.gather(
        *(backend.recognise(speak(sentence), "few", None) for sentence in SENTENCES[:4])
    )
    assert [h.text for h in heard] == SENTENCES[:4]


async def test_a_cancelled_request_stops_the_work(
    backend: Backend, chunks: Chunks, speak: Speak
) -> None:
    once = speak("please read the weather to me")
    await backend.recognise(once, "few", None)
    whole = 60 * chunks.count
    task = asyncio.create_task(backend.recognise(np.tile(once, 60), "few", None))
    await until(lambda: chunks.count > whole / 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    # Both processes are free again.
    again = [backend.recognise(speak("good morning"), "few", None) for _ in range(2)]
    assert [h.text for h in await asyncio.gather(*again)] == ["good morning"] * 2
    assert chunks.count < whole * 3 / 4


async def test_a_process_that_dies_is_replaced(backend: Backend, speak: Speak) -> None:
    before = children()
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    heard = await backend.recognise(speak("where is my order"), "few", None)
    assert heard.text == "where is my order"
    assert backend.alive
    assert children() - before


async def test_a_process_that_dies_over_its_work_is_asked_once_more(
    backend: Backend, chunks: Chunks, speak: Speak
) -> None:
    audio = np.tile(speak("please read the weather to me"), 8)
    task = asyncio.create_task(backend.recognise(audio, "few", None))
    await until(lambda: chunks.count > 5)
    for pid in children():
        os.kill(pid, signal.SIGKILL)
    assert (await task).words


async def test_the_queue_is_bounded_and_deadlines_are_kept(backend: Backend) -> None:
    audio = noise(20, -20, pink=True)
    with pytest.raises(DeadlineExceeded):
        await backend.recognise(audio, "few", time.monotonic() - 1)
    tasks = [asyncio.create_task(backend.recognise(audio, "few", None)) for _ in range(12)]
    await asyncio.sleep(0.1)
    refused = [task for task in tasks if task.done() and task.exception()]
    assert refused
    assert all(isinstance(task.exception(), Overloaded) for task in refused)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_closing_ends_the_processes(version: Version) -> None:
    backend = load(version, workers=1)
    mine = children()
    assert mine
    backend.close()
    assert not backend.alive
    assert not children() & mine


def test_an_unknown_backend_is_named(version: Version) -> None:
    other = version.manifest.model_copy(update={"backend": "crystal"})
    with pytest.raises(ValueError, match="there is no backend crystal"):
        load(Version("stt-en", 1, version.folder, other), workers=1)


def test_a_version_that_does_not_load_is_reported(version: Version, tmp_path: Path) -> None:
    for file in version.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes() if file.suffix != ".fsg" else b"")
    with pytest.raises(RuntimeError, match="while loading"):
        load(Version("stt-en", 1, tmp_path, version.manifest), workers=1)
