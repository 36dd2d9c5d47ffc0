"""The prediction log: what is kept, and that nothing is lost while the database is away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, text

from govor.config import Consent
from govor.database import Database, migrate
from govor.errors import Unavailable
from govor.predictions import Prediction, PredictionLog, as_consent
from govor.spool import Spool
from govor.tables import conversation, prediction
from tests.databases import AWAY, server

ITEM = Prediction(
    service="nlu",
    model="nlu",
    version=3,
    consent="answer",
    conversation_id="c",
    turn_id="t",
    subject="digest",
    language="en",
    input="mail me at john@example.com",
    output='{"email": "john@example.com"}',
    intent="contact",
    confidence=0.9,
    timings={"infer": 0.001},
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    url = f"sqlite:///{tmp_path}/govor.db"
    migrate(url)
    database = Database(url)
    await database.start()
    yield database
    await database.stop()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", 1 << 20)


async def rows(database: Database) -> list[Any]:
    return await database.run(
        lambda c: list(c.execute(select(prediction).order_by(prediction.c.at)).mappings())
    )


async def test_an_answer_leaves_lengths_and_no_text(database: Database, spool: Spool) -> None:
    log = PredictionLog(database, spool)
    log.record(ITEM)
    await log.flush()
    (row,) = await rows(database)
    assert row["input"] is None
    assert row["output"] is None
    assert (row["input_chars"], row["output_chars"]) == (27, 29)
    assert (row["language"], row["intent"], row["confidence"]) == ("en", "contact", 0.9)
    assert (row["service"], row["version"], row["timings"]) == ("nlu", 3, {"infer": 0.001})


@pytest.mark.parametrize("consent", ["store", "audio", "train"])
async def test_stored_text_is_masked(consent: Consent, database: Database, spool: Spool) -> None:
    log = PredictionLog(database, spool)
    log.record(replace(ITEM, consent=consent))
    await log.flush()
    (row,) = await rows(database)
    assert row["input"] == "mail me at [email]"
    assert row["output"] == '{"email": "[email]"}'
    assert row["consent"] == consent


async def test_no_text_waits_in_the_spool_without_consent(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 20)
    away = Database(f"postgresql+psycopg://govor@/postgres?host={tmp_path}")
    await away.start()
    log = PredictionLog(away, spool)
    log.record(ITEM)
    await log.flush()
    (file,) = spool.files()
    assert "mail me" not in file.read_text()
    await away.stop()


async def test_what_is_queued_at_the_end_is_written(database: Database, spool: Spool) -> None:
    log = PredictionLog(database, spool, every_seconds=60)
    await log.start()
    for number in range(1200):
        log.record(replace(ITEM, id=str(number)))
    await log.stop()
    assert len(await rows(database)) == 1200


async def test_a_batch_written_twice_counts_once(database: Database, spool: Spool) -> None:
    log = PredictionLog(database, spool)
    for _ in range(2):
        log.record(ITEM)
    await log.flush()
    log.record(ITEM)
    await log.flush()
    assert len(await rows(database)) == 1


async def test_a_full_queue_and_a_full_spool_are_counted(tmp_path: Path) -> None:
    dropped: list[int] = []
    away = Database(f"postgresql+psycopg://govor@/postgres?host={tmp_path}")
    await away.start()
    log = PredictionLog(away, Spool(tmp_path / "spool", 10), dropped=dropped.append, max_queued=3)
    for number in range(5):
        log.record(replace(ITEM, id=str(number)))
    await log.flush()
    assert dropped == [1, 1, 3]
    await away.stop()


async def test_nothing_arrives_for_a_conversation_that_was_deleted(
    database: Database, spool: Spool
) -> None:
    now = datetime.now(UTC)
    row = {
        "id": "c",
        "domain": "d",
        "consent": "train",
        "version": 0,
        "created_at": now,
        "updated_at": now,
        "deleted_at": now,
    }
    await database.run(lambda c: c.execute(insert(conversation), row))
    log = PredictionLog(database, spool)
    log.record(ITEM)
    log.record(replace(ITEM, id="2", conversation_id=None))
    await log.flush()
    assert [row["id"] for row in await rows(database)] == ["2"]


async def test_a_batch_that_the_database_refuses_is_set_aside(
    database: Database, spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    log = PredictionLog(database, spool)
    refuse = "CREATE TRIGGER refuse BEFORE INSERT ON prediction WHEN NEW.model = 'bad' "
    refuse += "BEGIN SELECT RAISE(ABORT, 'refused'); END"
    await database.run(lambda c: c.execute(text(refuse)))
    log.record(replace(ITEM, id="1", model="bad"))
    await log.flush()
    await log.load()
    assert "set aside" in caplog.text
    assert spool.files() == []
    log.record(replace(ITEM, id="2"))
    await log.flush()
    assert [row["id"] for row in await rows(database)] == ["2"]


@pytest.mark.parametrize("kind", AWAY)
@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.slow)])
async def test_no_prediction_is_lost(kind: str, seconds: float, tmp_path: Path) -> None:
    """The process ends and another begins in the middle of it, on the same spool."""
    with server(kind, tmp_path) as running:
        migrate(running.url)
        database = Database(running.url)
        await database.start()
        log = PredictionLog(database, Spool(tmp_path / "spool", 1 << 24), every_seconds=0.1)
        await log.start()
        recorded = 0
        with running.away():
            for half in range(2):
                for _ in range(int(seconds * 10)):
                    log.record(replace(ITEM, id=f"{recorded:06}"))
                    recorded += 1
                    await asyncio.sleep(0.05)
                if half == 0:
                    await log.stop()
                    log = PredictionLog(database, Spool(tmp_path / "spool", 1 << 24))
                    await log.start()
        async with asyncio.timeout(60):
            while (await _count(database)) < recorded:
                await asyncio.sleep(0.1)
        await log.stop()
        stored = [row["id"] for row in await rows(database)]
        assert sorted(stored) == [f"{number:06}" for number in range(recorded)]
        await database.stop()


async def _count(database: Database) -> int:
    try:
        return len(await rows(database))
    except Unavailable:
        return 0


@pytest.mark.parametrize(
    ("value", "consent"), [("train", "train"), (None, "answer"), ("everything", "answer")]
)
def test_only_a_consent_is_a_consent(value: str | None, consent: Consent) -> None:
    assert as_consent(value, "answer") == consent
