"""Conversations: one turn after another, kept by consent, and none lost without a database."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, insert, select, update

from govor.database import Database, migrate
from govor.errors import Conflict, NotFound, Unavailable
from govor.schemas.nlu import Entity
from govor.schemas.turn import FeedbackRequest, StoredTurn
from govor.spool import Spool
from govor.tables import conversation, feedback, idempotency_key, prediction, turn
from services.gateway.conversations import Conversations
from services.gateway.rows import Conversation
from tests.databases import AWAY, KINDS, Server, server
from tests.gateway.conftest import away, until


@pytest.fixture(params=KINDS, scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with server(request.param, tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def url(running: Server) -> str:
    url = running.fresh()
    migrate(url)
    return url


@asynccontextmanager
async def process(url: str, folder: Path, **options: Any) -> AsyncIterator[Conversations]:
    """The store as a gateway of its own runs it."""
    database = Database(url)
    await database.start()
    spool = Spool(folder / "turns", 1 << 24)
    store = Conversations(database, spool, default_consent="answer", **options)
    await store.start()
    try:
        yield store
    finally:
        await store.stop()
        await database.stop()


@pytest.fixture
async def store(url: str, tmp_path: Path) -> AsyncIterator[Conversations]:
    async with process(url, tmp_path) as store:
        yield store


def opening(
    store: Conversations, conversation_id: str | None, seconds: float = 30, **options: Any
) -> AbstractAsyncContextManager[Conversation]:
    asked = {"subject": None, "domain": None, "consent": None} | options
    return store.open(
        conversation_id,
        default_domain="horoscope",
        deadline=time.monotonic() + seconds,
        **asked,
    )


async def say(store: Conversations, conversation_id: str | None, **options: Any) -> Conversation:
    """A turn; the state counts them."""
    text = options.pop("text", "hello")
    speaker = options.get("subject") or ""
    async with opening(store, conversation_id, **options) as opened:
        opened.state["turns"] = opened.state.get("turns", 0) + 1
        turn_id = f"{speaker}:{opened.id}/{opened.state['turns']}"
        await store.save(opened, spoken(text, turn_id))
    return opened


def spoken(text: str = "hello", turn_id: str | None = None) -> StoredTurn:
    return StoredTurn(
        turn_id=turn_id or uuid4().hex,
        at=datetime.now(UTC).isoformat(),
        language="en",
        utterance=text,
        intent="greet",
        confidence=0.5,
        reply=f"You said {text}.",
        steps=["greeting"],
        degraded=[],
    )


async def count(store: Conversations, table: Any) -> int:
    found = await store._database.run(lambda c: c.scalar(select(func.count()).select_from(table)))
    return int(found or 0)


async def test_turns_and_state_are_kept(url: str, tmp_path: Path) -> None:
    async with process(url, tmp_path) as store:
        first = await say(store, None)
        await say(store, first.id)
    async with process(url, tmp_path) as store:
        third = await say(store, first.id)
        assert (third.state, third.version) == ({"turns": 3}, 3)
        stored = await store.get(first.id, None)
        assert [each.turn_id for each in stored.turns] == [f":{first.id}/{n}" for n in (1, 2, 3)]
        assert stored.turns[0].steps == ["greeting"]
        assert (stored.domain, stored.consent) == ("horoscope", "answer")


async def test_an_unknown_id_begins_a_conversation_under_it(store: Conversations) -> None:
    assert (await say(store, "mine:1")).id == "mine:1"
    assert len((await store.get("mine:1", None)).turns) == 1


async def test_text_is_masked(store: Conversations) -> None:
    await say(store, "c", text="john@example.com")
    (stored,) = (await store.get("c", None)).turns
    assert (stored.utterance, stored.reply) == ("[email]", "You said [email].")


@pytest.mark.parametrize("subject", [None, "another"])
async def test_a_conversation_is_its_subjects(subject: str | None, store: Conversations) -> None:
    await say(store, "c", subject="someone")
    with pytest.raises(NotFound) as error:
        await say(store, "c", subject=subject)
    assert error.value.code == "conversation_not_found"
    with pytest.raises(NotFound):
        await store.get("c", subject)
    with pytest.raises(NotFound):
        await store.delete("c", subject)
    with pytest.raises(NotFound):
        await store.feedback(FeedbackRequest(turn_id="someone:c/1", rating=1), subject)
    assert (await say(store, "c", subject="someone")).state == {"turns": 2}


async def test_a_conversation_keeps_its_first_domain(store: Conversations) -> None:
    await say(store, "c", domain="support")
    assert (await say(store, "c")).domain == "support"
    assert (await say(store, "c", domain="support")).domain == "support"
    with pytest.raises(Conflict) as error:
        await say(store, "c", domain="horoscope")
    assert (error.value.code, error.value.param) == ("conversation_domain", "domain")
    assert (await say(store, "c")).version == 4


async def test_consent_is_kept_and_may_be_given_later(store: Conversations) -> None:
    assert (await say(store, "c")).consent == "answer"
    assert (await say(store, "c", consent="train")).consent == "train"
    assert (await say(store, "c")).consent == "train"
    assert (await say(store, "c", consent="answer")).consent == "answer"
    assert (await store.get("c", None)).consent == "answer"


async def test_a_turn_that_fails_changes_nothing(store: Conversations) -> None:
    await say(store, "c")

    async def fail() -> None:
        async with opening(store, "c") as opened:
            opened.state["turns"] = 99
            raise ValueError("the reply failed")

    with pytest.raises(ValueError, match="the reply failed"):
        await fail()
    assert (await say(store, "c")).state == {"turns": 2}


async def test_turns_of_two_processes_follow_one_another(url: str, tmp_path: Path) -> None:
    async with process(url, tmp_path / "a") as a, process(url, tmp_path / "b") as b:
        opened = await asyncio.gather(*(say(store, "c", seconds=60) for store in [a, b] * 10))
        assert sorted(each.state["turns"] for each in opened) == list(range(1, 21))
        stored = await a.get("c", None)
        assert [each.turn_id for each in stored.turns] == [f":c/{n}" for n in range(1, 21)]


@pytest.mark.parametrize("same_process", [True, False])
async def test_a_turn_waits_for_the_one_before_it_and_then_is_refused(
    same_process: bool, url: str, tmp_path: Path
) -> None:
    async with process(url, tmp_path) as first, process(url, tmp_path / "other") as other:
        second = first if same_process else other
        async with opening(first, "c") as opened:
            waiting = asyncio.create_task(say(second, "c"))
            with pytest.raises(Conflict) as error:
                await say(second, "c", seconds=0.3)
            assert error.value.code == "conversation_busy"
            opened.state["turns"] = 1
            await first.save(opened, spoken())
        assert (await waiting).state == {"turns": 2}


async def test_the_lease_of_a_dead_process_runs_out(url: str, tmp_path: Path) -> None:
    def later() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=36)

    async with process(url, tmp_path / "dead") as dead:
        async with opening(dead, "c", seconds=30) as held:
            async with process(url, tmp_path) as store:
                with pytest.raises(Conflict):
                    await say(store, "c", seconds=0.3)
            async with process(url, tmp_path, now=later) as store:
                assert (await say(store, "c")).version == 1
            with pytest.raises(Conflict):  # it was not dead after all: compare and set
                await dead.save(held, spoken())
        assert len((await dead.get("c", None)).turns) == 1


async def test_a_caller_who_leaves_does_not_undo_a_turn(store: Conversations) -> None:
    async def leave() -> None:
        async with opening(store, "c") as opened:
            opened.state["turns"] = 1
            asyncio.get_running_loop().call_soon(leaving.cancel)
            await store.save(opened, spoken())

    leaving = asyncio.create_task(leave())
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await say(store, "c")).state == {"turns": 2}
    assert len((await store.get("c", None)).turns) == 2


async def test_deleting_leaves_nothing_and_the_id_may_begin_again(store: Conversations) -> None:
    await say(store, "c", subject="someone")
    await store.feedback(FeedbackRequest(turn_id="someone:c/1", rating=1), "someone")
    now = datetime.now(UTC)
    said = {"id": "p", "at": now, "conversation_id": "c", "consent": "answer", "service": "nlu"}
    answered = {"scope": "s", "principal": "p", "key": "k", "body_digest": "d", "holder": "h"}
    answered |= {"conversation_id": "c"}
    times = {"held_until": now, "created_at": now}
    await store._database.run(
        lambda c: (
            c.execute(insert(prediction), said | {"model": "nlu", "timings": {}, "status": "ok"}),
            c.execute(insert(idempotency_key), answered | times),
        )
    )
    await store.delete("c", "someone")
    for table in (turn, feedback, prediction, idempotency_key):
        assert await count(store, table) == 0
    with pytest.raises(NotFound):
        await store.get("c", "someone")
    with pytest.raises(NotFound):
        await store.delete("c", "someone")
    assert (await say(store, "c", subject="another")).state == {"turns": 1}
    assert len((await store.get("c", "another")).turns) == 1


async def test_a_turn_under_way_does_not_revive_what_is_deleted(url: str, tmp_path: Path) -> None:
    async with process(url, tmp_path / "a") as store, process(url, tmp_path / "b") as other:
        async with opening(store, "c") as opened:
            await other.delete("c", None)
            await store.save(opened, spoken())
        assert await count(store, turn) == 0
        with pytest.raises(NotFound):
            await store.get("c", None)


async def test_feedback_is_masked_and_kept_beside_its_turn(store: Conversations) -> None:
    await say(store, "c")
    entity = Entity(entity="email", value="a@example.com", start=0, end=1, confidence=1.0)
    request = FeedbackRequest(
        turn_id=":c/1",
        rating=-1,
        corrected_transcript="my card is 4242 4242 4242 4242",
        corrected_intent="pay",
        corrected_entities=[entity],
        comment="call +1 650 253 0000",
    )
    await store.feedback(request, None)
    row = await store._database.run(lambda c: c.execute(select(feedback)).one())
    assert (row.conversation_id, row.rating, row.corrected_intent) == ("c", -1, "pay")
    assert (row.corrected_transcript, row.comment) == ("my card is [card]", "call [phone]")
    assert row.corrected_entities[0]["value"] == "[email]"


async def test_feedback_on_an_unknown_turn_is_refused(store: Conversations) -> None:
    with pytest.raises(NotFound) as error:
        await store.feedback(FeedbackRequest(turn_id="none", rating=1), None)
    assert error.value.code == "turn_not_found"


async def test_memory_holds_a_bounded_number_of_conversations(
    store: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.conversations._RECENT", 10)
    for number in range(30):
        await say(store, f"c{number}")
    assert len(store._recent) == 10


async def test_a_turn_that_neither_database_nor_spool_takes_is_counted(tmp_path: Path) -> None:
    dropped: list[int] = []
    database = Database(f"postgresql+psycopg://govor@/postgres?host={tmp_path}")
    await database.start()
    spool = Spool(tmp_path / "spool", 10)
    store = Conversations(database, spool, default_consent="answer", dropped=dropped.append)
    assert (await say(store, "c")).state == {"turns": 1}
    assert (await say(store, "c")).state == {"turns": 2}
    assert dropped == [1, 1]
    await database.stop()


@pytest.mark.parametrize("kind", AWAY)
@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
async def test_no_turn_fails_and_none_is_lost(kind: str, seconds: float, tmp_path: Path) -> None:
    """Open conversations go on, new ones begin, and the gateway is restarted half-way."""
    with server(kind, tmp_path) as running:
        migrate(running.url)
        said: dict[str, int] = {}

        async def everyone(store: Conversations, *ids: str) -> None:
            async with asyncio.timeout(20):
                for opened in await asyncio.gather(*(say(store, each) for each in ids)):
                    said[opened.id] = said.get(opened.id, 0) + 1
                    assert opened.state == {"turns": said[opened.id]}

        open_before = [f"before{n}" for n in range(5)]
        async with process(running.url, tmp_path) as store:
            await everyone(store, *open_before)
            with away(running):
                end = time.monotonic() + seconds
                while time.monotonic() < end - seconds / 2:
                    await everyone(store, *open_before, "during", f"new{len(said)}")
                    await asyncio.sleep(0.1)
                with pytest.raises(Unavailable):
                    await store.get("during", None)
                await store.stop()
                async with process(running.url, tmp_path) as restarted:
                    while time.monotonic() < end:
                        await everyone(restarted, *open_before, "during", f"new{len(said)}")
                        await asyncio.sleep(0.1)
        async with process(running.url, tmp_path) as store:
            await until(lambda: not store._spool.files())
            for conversation_id, turns in said.items():
                stored = await store.get(conversation_id, None)
                expected = [f":{conversation_id}/{n}" for n in range(1, turns + 1)]
                assert [each.turn_id for each in stored.turns] == expected
            await everyone(store, *said)


async def test_a_conversation_of_somebody_else_is_not_joined_without_the_database(
    tmp_path: Path,
) -> None:
    """Under an id that this process has not seen, a stranger's turn is kept, but not there."""
    with server("sqlite", tmp_path) as running:
        migrate(running.url)
        async with process(running.url, tmp_path / "a") as store:
            await say(store, "c", subject="owner")
        async with process(running.url, tmp_path / "b") as store:
            with away(running):
                assert (await say(store, "c", subject="stranger")).state == {"turns": 1}
            await until(lambda: not store._spool.files())
            assert len((await store.get("c", "owner")).turns) == 1
            assert await count(store, turn) == 2
            assert await count(store, conversation) == 2
            with pytest.raises(NotFound):
                await store.get("c", "stranger")


async def test_a_transaction_that_was_given_up_and_committed_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/govor.db"
    migrate(url)
    async with process(url, tmp_path) as store:
        await say(store, "c")
        monkeypatch.setattr("services.gateway.conversations._PATIENCE_SECONDS", 0.000001)
        await say(store, "c")
        monkeypatch.setattr("services.gateway.conversations._PATIENCE_SECONDS", 60)
        assert (await say(store, "c")).state == {"turns": 3}
        assert len((await store.get("c", None)).turns) == 3


async def test_an_emptied_state_begins_afresh(store: Conversations) -> None:
    await say(store, "c")
    await store._database.run(lambda c: c.execute(update(conversation).values(state=None)))
    async with opening(store, "c") as opened:
        assert (opened.state, opened.version) == ({}, 1)


async def test_a_spooled_file_that_cannot_be_read_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/govor.db"
    migrate(url)
    spool = Spool(tmp_path / "turns", 1 << 20)
    spool.write([{"turn": {"conversation_id": "c"}}])
    (tmp_path / "turns" / "0.jsonl").write_text("half a li")
    async with process(url, tmp_path) as store:
        assert (await say(store, "c")).state == {"turns": 1}
        await store.load()
        assert store._spool.files() == []
        assert len((await store.get("c", None)).turns) == 1
    assert "set aside" in caplog.text


async def test_texts_are_masked_off_the_event_loop(
    store: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []

    def slow(text: str) -> str:
        threads.append(threading.get_ident())
        return text

    monkeypatch.setattr("services.gateway.rows.mask", slow)
    opened = await say(store, None)
    turn_id = (await store.get(opened.id, None)).turns[0].turn_id
    await store.feedback(FeedbackRequest(turn_id=turn_id, rating=1, comment="good"), None)
    assert threads
    assert threading.get_ident() not in threads


async def test_a_pack_may_say_what_a_conversation_begins_with(store: Conversations) -> None:
    begun = await say(store, None, begun_consent="store")
    assert begun.consent == "store"
    asked = await say(store, begun.id, consent="answer")
    assert (asked.consent, (await say(store, begun.id, begun_consent="store")).consent) == (
        "answer",
        "answer",
    )
