"""A repeated Idempotency-Key gets the first answer, another body under it a conflict."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from govor.database import Database, migrate
from govor.errors import Conflict
from services.gateway.idempotency import Claim, Idempotency
from tests.databases import KINDS, Server, server
from tests.gateway.conftest import Gateway, away


@pytest.fixture(params=KINDS, scope="module")
def database_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with server(request.param, tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def url(database_server: Server) -> str:
    url = database_server.fresh()
    migrate(url)
    return url


@asynccontextmanager
async def process(
    url: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncIterator[Idempotency]:
    database = Database(url)
    await database.start()
    yield Idempotency(database, now=now)
    await database.stop()


async def ask(
    keys: Idempotency,
    body: str = "body",
    *,
    key: str | None = "key",
    principal: str = "app",
    answer: dict[str, Any] | None = None,
    patience: float = 60,
) -> Claim:
    """A request that answers `answer` when it is the first."""
    deadline = time.monotonic() + patience
    async with keys.begin(key, "converse", principal, body, deadline) as claim:
        if not claim.replayed:
            claim.answer = answer or {"reply": body}
            claim.conversation_id = "c"
    return claim


async def test_a_repeat_gets_the_first_answer(url: str) -> None:
    async with process(url) as keys:
        assert not (await ask(keys, answer={"reply": "first"})).replayed
        repeat = await ask(keys, answer={"reply": "second"})
    async with process(url) as keys:
        after_a_restart = await ask(keys, answer={"reply": "third"})
    assert repeat == after_a_restart == Claim(replayed=True, answer={"reply": "first"})


async def test_another_body_under_the_key_is_a_conflict(url: str) -> None:
    async with process(url) as keys, process(url) as other:
        await ask(keys)
        for each in (keys, other):
            with pytest.raises(Conflict) as error:
                await ask(each, "another body")
            assert error.value.code == "idempotency_conflict"
        assert (await ask(other)).replayed


async def test_a_key_belongs_to_its_principal(url: str) -> None:
    async with process(url) as keys:
        await ask(keys)
        assert not (await ask(keys, "another body", principal="other app")).replayed


async def test_without_a_key_nothing_is_kept(url: str) -> None:
    async with process(url) as keys:
        await ask(keys, key=None)
        assert not (await ask(keys, "another body", key=None)).replayed


@pytest.mark.parametrize("same_process", [True, False])
async def test_a_duplicate_waits_for_the_first(same_process: bool, url: str) -> None:
    async with process(url) as keys, process(url) as second:
        other = keys if same_process else second
        deadline = time.monotonic() + 60
        async with keys.begin("key", "converse", "app", "body", deadline) as first:
            with pytest.raises(Conflict) as error:
                await ask(other, patience=0.1)
            assert error.value.code == "in_progress"
            waiting = asyncio.create_task(ask(other))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            first.answer = {"reply": "first"}
        assert await waiting == Claim(replayed=True, answer={"reply": "first"})
        assert not first.replayed


async def test_a_request_that_failed_may_be_tried_again(url: str) -> None:
    async def fail(keys: Idempotency) -> None:
        async with keys.begin("key", "converse", "app", "body", time.monotonic() + 10):
            raise ValueError("it failed")

    async with process(url) as keys, process(url) as other:
        with pytest.raises(ValueError, match="it failed"):
            await fail(keys)
        assert not (await ask(other, "another body")).replayed


async def test_a_key_is_free_after_a_day(url: str) -> None:
    now = datetime.now(UTC)
    async with process(url, lambda: now) as keys, process(url, lambda: now) as other:
        await ask(keys)
        now += timedelta(hours=23, minutes=59)
        assert (await ask(keys)).replayed
        now += timedelta(minutes=1)
        assert not (await ask(keys, "another body")).replayed
        assert (await ask(other, "another body")).replayed


async def test_the_key_of_a_dead_process_is_free_when_its_time_has_passed(url: str) -> None:
    def later() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=16)

    async with process(url) as dead, process(url, later) as keys:
        async with dead.begin("key", "converse", "app", "body", time.monotonic() + 10):
            assert not (await ask(keys, answer={"reply": "first"})).replayed
        assert (await ask(dead)).answer == {"reply": "first"}


async def test_repeats_are_answered_without_the_database(tmp_path: Path) -> None:
    with server("sqlite", tmp_path) as running:
        migrate(running.url)
        async with process(running.url) as keys:
            await ask(keys, key="before")
            with away(running):
                assert (await ask(keys, key="before")).replayed
                assert not (await ask(keys, key="during")).replayed
                assert (await ask(keys, key="during")).replayed
                with pytest.raises(Conflict):
                    await ask(keys, "another body", key="during")


async def test_the_answers_of_a_deleted_conversation_are_forgotten(tmp_path: Path) -> None:
    with server("sqlite", tmp_path) as running:
        migrate(running.url)
        async with process(running.url) as keys:
            with away(running):
                await ask(keys)
                keys.forget("another")
                assert (await ask(keys)).replayed
                keys.forget("c")
                assert not (await ask(keys)).replayed


async def test_a_deleted_conversation_is_not_answered_from_memory(gateway: Gateway) -> None:
    async with gateway() as client:
        body = {"conversation_id": "c", "text": "what do the stars say for leo"}
        key = {"idempotency-key": "k"}
        first = await client.post("/v1/converse", json=body, headers=key)
        assert (await client.delete("/v1/conversations/c")).status_code == 204
        again = await client.post("/v1/converse", json=body, headers=key)
        assert again.json()["turn_id"] != first.json()["turn_id"]


async def test_memory_holds_a_bounded_number_of_answers(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.idempotency._RECENT", 10)
    async with process(url) as keys:
        for number in range(30):
            await ask(keys, key=str(number))
        assert len(keys._recent) == 10
        assert (await ask(keys, key="0")).replayed
