"""What is deleted when its time has passed, with a moved clock, on both databases."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, insert, select, update
from sqlalchemy.engine import Connection

from govor.config import Consent
from govor.database import Database, migrate
from govor.retention import Retention, sweep
from govor.tables import conversation, feedback, idempotency_key, prediction, turn
from tests.core.waiting import until
from tests.databases import KINDS, Server, server

BEGUN = datetime(2026, 8, 3, 12, 0, tzinfo=UTC)


@pytest.fixture(params=KINDS, scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with server(request.param, tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
async def database(running: Server) -> AsyncIterator[Database]:
    url = running.fresh()
    migrate(url)
    database = Database(url)
    await database.start()
    for consent in ("answer", "store"):
        await _say(database, consent)
    yield database
    await database.stop()


async def _say(database: Database, consent: Consent) -> None:
    """A turn at `BEGUN`, with everything that is kept of it; its id is the consent."""
    ours = {"conversation_id": consent, "at": BEGUN}
    rows: list[tuple[Table, dict[str, Any]]] = [
        (
            conversation,
            {
                "id": consent,
                "domain": "d",
                "consent": consent,
                "state": {"slot": "value"},
                "version": 1,
                "created_at": BEGUN,
                "updated_at": BEGUN,
            },
        ),
        (
            turn,
            {
                "id": consent,
                **ours,
                "language": "en",
                "utterance": "u",
                "intent": "i",
                "reply": "r",
                "steps": [],
                "degraded": [],
            },
        ),
        (
            feedback,
            {
                "id": consent,
                "turn_id": consent,
                **ours,
                "rating": 1,
                "corrected_intent": "i",
                "corrected_entities": [{"value": "v"}],
                "comment": "c",
            },
        ),
        (
            prediction,
            {
                "id": consent,
                **ours,
                "consent": consent,
                "service": "nlu",
                "model": "nlu",
                "input": "u" if consent == "store" else None,
                "input_chars": 1,
                "timings": {},
                "status": "ok",
            },
        ),
        (
            idempotency_key,
            {
                "scope": "converse",
                "principal": "p",
                "key": consent,
                "body_digest": "b",
                "answer": {"reply": "r"},
                "holder": "h",
                "held_until": BEGUN,
                "created_at": BEGUN,
            },
        ),
    ]

    def write(connection: Connection) -> None:
        for table, row in rows:
            connection.execute(insert(table), row)

    await database.run(write)


async def texts(database: Database) -> set[str]:
    """Where text of which conversation is still kept."""
    columns = {
        "turn": (turn.c.id, turn.c.utterance),
        "reply": (turn.c.id, turn.c.reply),
        "comment": (feedback.c.id, feedback.c.comment),
        "entities": (feedback.c.id, feedback.c.corrected_entities),
        "prediction": (prediction.c.id, prediction.c.input),
        "state": (conversation.c.id, conversation.c.state),
        "answer": (idempotency_key.c.key, idempotency_key.c.answer),
    }

    def read(connection: Connection) -> set[str]:
        return {
            f"{name} of {row[0]}"
            for name, (key, column) in columns.items()
            for row in connection.execute(select(key, column))
            if row[1] is not None
        }

    return await database.run(read)


ALL = {
    *(f"{name} of answer" for name in ("turn", "reply", "comment", "entities", "state", "answer")),
    *(f"{name} of store" for name in ("turn", "reply", "comment", "entities", "state", "answer")),
    "prediction of store",
}
STORED = {f"{name} of store" for name in ("turn", "reply", "comment", "entities", "prediction")}


@pytest.mark.parametrize(
    ("age", "kept"),
    [
        (timedelta(hours=23, minutes=59), ALL),
        (timedelta(hours=24), STORED),
        (timedelta(days=89, hours=23), STORED),
        (timedelta(days=90), set()),
    ],
)
async def test_text_lives_a_day_and_with_consent_ninety(
    age: timedelta, kept: set[str], database: Database
) -> None:
    assert await texts(database) == ALL
    await database.run(lambda c: sweep(c, BEGUN + age))
    assert await texts(database) == kept


async def test_what_is_no_text_stays(database: Database) -> None:
    await database.run(lambda c: sweep(c, BEGUN + timedelta(days=400)))
    intents = await database.run(lambda c: c.scalars(select(turn.c.intent)).all())
    ratings = await database.run(lambda c: c.scalars(select(feedback.c.rating)).all())
    lengths = await database.run(lambda c: c.scalars(select(prediction.c.input_chars)).all())
    assert (intents, ratings, lengths) == (["i", "i"], [1, 1], [1, 1])


async def test_a_consent_that_is_withdrawn_holds_for_what_was_kept(database: Database) -> None:
    await database.run(lambda c: c.execute(update(conversation).values(consent="answer")))
    await database.run(lambda c: sweep(c, BEGUN + timedelta(hours=1)))
    assert "prediction of store" not in await texts(database)
    await database.run(lambda c: sweep(c, BEGUN + timedelta(hours=24)))
    assert await texts(database) == set()


async def test_the_sign_of_a_deleted_conversation_goes_after_a_day(database: Database) -> None:
    await database.run(lambda c: c.execute(update(conversation).values(deleted_at=BEGUN)))
    for hours, left in [(23, 2), (24, 0)]:
        await database.run(partial(sweep, now=BEGUN + timedelta(hours=hours)))
        ids = await database.run(lambda c: c.scalars(select(conversation.c.id)).all())
        assert len(ids) == left


async def test_the_sweep_follows_the_clock(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/govor.db"
    migrate(url)
    database = Database(url)
    await database.start()
    await _say(database, "answer")
    now, looked = BEGUN + timedelta(hours=1), 0

    def clock() -> datetime:
        nonlocal looked
        looked += 1
        return now

    retention = Retention(database, now=clock, every_seconds=0.02)
    await retention.start()
    await until(lambda: looked > 1)  # the first sweep is over
    assert "turn of answer" in await texts(database)
    now, before = BEGUN + timedelta(hours=25), looked
    await until(lambda: looked > before + 1)
    assert await texts(database) == set()
    await retention.stop()
    await database.stop()
