"""govor/serving.py"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from govor.errors import NotFound, Unavailable
from govor.repository import Repository, Version, deploy, write_manifest
from govor.serving import Served
from tests.core.waiting import until


class Word:
    """A model that answers the word in its version's folder."""

    def __init__(self, version: Version) -> None:
        self.text = version.path("word.txt").read_text()
        if self.text == "broken":
            raise ValueError("does not load")
        self.alive = True
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    for number, word in enumerate(("one", "two", "broken"), start=1):
        folder = tmp_path / "bundled" / "word" / str(number)
        folder.mkdir(parents=True)
        (folder / "word.txt").write_text(word)
        write_manifest(
            folder,
            model="word",
            version=number,
            backend="word",
            languages=[],
            recipe="tests",
            licence="Apache-2.0",
        )
    repository = Repository(tmp_path / "var", tmp_path / "bundled")
    deploy(repository, "word", {"champion": 1}, 0)
    return repository


@pytest.fixture
async def served(repository: Repository) -> AsyncIterator[Served[Word]]:
    served = Served(repository, "word", Word, poll_seconds=0.01)
    await served.start()
    yield served
    await served.stop()


async def until_serves(served: Served[Word], number: int) -> None:
    await until(lambda: served.ready() == (True, f"version {number}"))


async def test_a_lease_outlives_the_swap(repository: Repository, served: Served[Word]) -> None:
    async with served.acquire() as old:
        deploy(repository, "word", {"champion": 2}, 1)
        await until_serves(served, 2)
        async with served.acquire() as new:
            assert (old.model.text, new.model.text) == ("one", "two")
        assert not old.model.closed
    assert old.model.closed


async def test_a_broken_version_is_reported_and_the_old_one_goes_on(
    repository: Repository, served: Served[Word], caplog: pytest.LogCaptureFixture
) -> None:
    def errors() -> list[str]:
        return [r.message for r in caplog.records if r.levelname == "ERROR"]

    deploy(repository, "word", {"champion": 3}, 1)
    await until(lambda: bool(errors()))
    await asyncio.sleep(0.1)  # several polls
    assert errors() == ["word: does not load"]
    assert served.ready() == (True, "version 1")
    deploy(repository, "word", {"champion": 2}, 2)
    await until_serves(served, 2)


async def test_a_version_may_be_asked_for(repository: Repository, served: Served[Word]) -> None:
    async with served.acquire(2) as lease:
        assert lease.model.text == "two"
    async with served.acquire(1) as lease:
        assert lease.model.text == "one"
    with pytest.raises(NotFound):
        async with served.acquire(9):
            pass


async def test_a_version_that_its_gate_refused_serves_nobody(
    repository: Repository, served: Served[Word], tmp_path: Path
) -> None:
    source = tmp_path / "worse"
    source.mkdir()
    (source / "word.txt").write_text("worse")
    facts = repository.manifest("word", 1).model_dump(include={"backend", "languages", "recipe"})
    gates = [{"name": "accuracy", "passed": False}]
    number = repository.publish("word", source, **facts, licence="Apache-2.0", gates=gates).number
    with pytest.raises(NotFound, match="did not pass its gate"):
        async with served.acquire(number):
            pass
    by_hand = repository.deployment("word").model_copy(update={"champion": number})
    (repository.writable / "word" / "deployment.json").write_text(by_hand.model_dump_json())
    await served.refresh()
    async with served.acquire() as lease:
        assert lease.model.text == "one"


async def test_a_version_asked_for_that_does_not_load_is_unavailable(
    served: Served[Word],
) -> None:
    with pytest.raises(Unavailable, match="word version 3 does not load"):
        async with served.acquire(3):
            pass


async def test_a_version_asked_for_that_died_is_built_again(served: Served[Word]) -> None:
    async with served.acquire(2) as lease:
        dead = lease.model
        dead.alive = False
    async with served.acquire(2) as lease:
        assert lease.model is not dead
    assert dead.closed


async def test_a_model_that_cannot_be_closed_stops_nothing(
    repository: Repository, served: Served[Word]
) -> None:
    def close() -> None:
        raise BrokenPipeError

    async with served.acquire() as lease:
        lease.model.close = close  # type: ignore[method-assign]
        deploy(repository, "word", {"champion": 2}, 1)
        await until_serves(served, 2)
    deploy(repository, "word", {"champion": 1}, 2)
    await until_serves(served, 1)


async def test_a_dead_model_is_built_again(served: Served[Word]) -> None:
    async with served.acquire() as lease:
        dead = lease.model
        dead.alive = False
    await until(lambda: served.ready()[0])
    async with served.acquire() as lease:
        assert lease.model is not dead
    await until(lambda: dead.closed)  # after the exchange, in a thread


async def test_without_a_version_it_is_not_ready_and_says_why(tmp_path: Path) -> None:
    served = Served(Repository(tmp_path / "var", tmp_path / "none"), "word", Word)
    await served.start()
    assert served.ready() == (False, "there is no model word")
    with pytest.raises(Unavailable, match="there is no model word"):
        async with served.acquire():
            pass
    await served.stop()


async def test_a_champion_that_did_not_load_for_a_moment_is_tried_again(
    repository: Repository, served: Served[Word], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("govor.serving.AGAIN_SECONDS", 0.05)
    tries = 0

    def load(version: Version) -> Word:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise MemoryError
        return Word(version)

    served.load = load
    deploy(repository, "word", {"champion": 2}, 1)
    await until_serves(served, 2)
    assert tries == 3


async def test_a_champion_whose_files_are_wrong_waits_for_another(
    repository: Repository, served: Served[Word], caplog: pytest.LogCaptureFixture
) -> None:
    (repository.bundled / "word" / "2" / "word.txt").write_text("changed since")
    by_hand = repository.deployment("word").model_copy(update={"champion": 2})
    (repository.writable / "word" / "deployment.json").write_text(by_hand.model_dump_json())
    await until(lambda: "word" in caplog.text)
    assert math.isinf(served._again)
    deploy(repository, "word", {"champion": 1}, by_hand.generation)
    assert served.ready() == (True, "version 1")


async def test_a_refused_champion_is_not_loaded_at_every_poll(
    repository: Repository, served: Served[Word], caplog: pytest.LogCaptureFixture
) -> None:
    deploy(repository, "word", {"champion": 3}, 1)
    await until(lambda: "does not load" in caplog.text)
    loads = 0

    def count(version: Version) -> Word:
        nonlocal loads
        loads += 1
        return Word(version)

    served.load = count
    await asyncio.sleep(0.1)
    assert loads == 0
