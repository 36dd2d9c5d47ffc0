"""The tables, their migration and the thread that writes them, on both databases."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from govor import tables
from govor.config import ConfigurationError
from govor.database import (
    _MIGRATION_LOCK,
    REVISION,
    Database,
    migrate,
    read_api_keys,
    read_revision,
    record_deployment,
    transaction,
)
from govor.errors import Unavailable
from govor.keys import KeyRow
from tests.core.waiting import PATIENCE_SECONDS, until
from tests.databases import AWAY, KINDS, Server, server

NOW = datetime(2026, 8, 3, 12, 30, 15, 123456, UTC)
DEPLOYED = {
    "model": "nlu",
    "before": {"generation": 1},
    "after": {"generation": 2, "since": NOW.isoformat()},
    "actor": "anna",
    "reason": "so it is",
}


@pytest.fixture(params=KINDS, scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with server(request.param, tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def url(running: Server) -> str:
    return running.fresh()


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    migrate(url)
    database = Database(url, watch_seconds=0.05)
    await database.start()
    yield database
    await database.stop()


def _schema_differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), tables.metadata))


def test_the_migrated_schema_is_the_one_in_the_code(url: str) -> None:
    migrate(url)
    with transaction(url) as connection:
        assert _schema_differences(connection) == []


def test_the_code_names_the_last_revision() -> None:
    scripts = Path(tables.__file__).parent / "migrations"
    assert ScriptDirectory(scripts).get_current_head() == REVISION


def test_several_processes_may_migrate_at_once(url: str) -> None:
    command = [sys.executable, "-c", f"from govor.database import migrate; migrate({url!r})"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
    with transaction(url) as connection:
        assert read_revision(connection) == REVISION


def test_who_comes_while_a_new_file_is_written_waits(tmp_path: Path) -> None:
    """SQLite's own patience does not cover the change of its mode."""
    file = tmp_path / "new.db"
    with contextlib.closing(sqlite3.connect(file, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        leaves = threading.Timer(0.3, other.rollback)
        leaves.start()
        with transaction(f"sqlite:///{file}") as connection:
            assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        leaves.join()


@pytest.mark.slow
def test_who_migrates_waits_for_another_on_a_slow_machine(url: str) -> None:
    with transaction(url) as other:
        if other.dialect.name == "postgresql":
            other.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        with ThreadPoolExecutor(1) as pool:
            migrates = pool.submit(migrate, url)
            with pytest.raises(TimeoutError):
                migrates.result(7)
            other.commit()
            migrates.result(60)


def test_a_database_that_is_not_there_is_a_bad_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^GOVOR_DATABASE_URL cannot be used: .*$"):
        migrate(f"postgresql+psycopg://govor@/postgres?host={tmp_path}")


def test_a_schema_of_a_later_version_is_a_bad_configuration(url: str) -> None:
    migrate(url)
    with transaction(url) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
    with pytest.raises(ConfigurationError, match=r"another version of Govor \(.*'0999'\)"):
        migrate(url)
    with transaction(url) as connection:
        assert read_revision(connection) == "0999"


async def test_a_service_that_finds_another_revision_is_not_ready(url: str) -> None:
    database = Database(url, watch_seconds=0.05)
    needed = f"{REVISION} is needed: python -m services init"
    await database.start()
    await until(lambda: database.ready() == (False, f"revision None, {needed}"))
    await asyncio.to_thread(migrate, url)
    await until(lambda: database.ready() == (True, "ok"))
    await database.run(lambda c: c.execute(text("UPDATE alembic_version SET version_num='0999'")))
    await until(lambda: database.ready() == (False, f"revision 0999, {needed}"))
    await database.stop()


async def test_transactions_run_on_one_thread_and_never_on_the_loops(database: Database) -> None:
    threads = await asyncio.gather(
        *(database.run(lambda c: threading.current_thread()) for _ in range(20))
    )
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(insert(tables.api_key), key_row("a"))
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        await database.run(fail)
    assert await database.run(read_api_keys) == []


async def test_a_caller_waits_no_longer_than_it_says(database: Database) -> None:
    begun, release = threading.Event(), threading.Event()

    def hang(connection: Connection) -> None:
        begun.set()
        release.wait(60)

    hangs = asyncio.create_task(database.run(hang, timeout=60))
    await until(begun.is_set)
    with pytest.raises(Unavailable):
        await database.run(lambda c: None, timeout=0.5)
    with pytest.raises(Unavailable, match="an earlier transaction hangs"):  # at once
        await database.run(lambda c: None, timeout=0.1)
    release.set()
    await hangs
    assert await database.run(lambda c: 1) == 1


@pytest.mark.parametrize("kind", AWAY)
async def test_it_comes_back_by_itself(kind: str, tmp_path: Path) -> None:
    with server(kind, tmp_path) as running:
        migrate(running.url)
        database = Database(running.url)
        await database.start()
        with running.away():
            with pytest.raises(Unavailable) as error:
                await database.run(lambda c: c.scalar(text("SELECT 1")), 0.25)
            assert error.value.code == "database_unavailable"
            assert database.ready() == (True, "away")
        assert await _when_back(database) == 1
        await until(lambda: database.ready() == (True, "ok"))
        await database.stop()


async def _when_back(database: Database) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return int(await database.run(lambda c: c.scalar(text("SELECT 1"))))
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_a_service_starts_while_the_database_is_away(tmp_path: Path) -> None:
    database = Database(f"postgresql+psycopg://govor@/postgres?host={tmp_path}")
    await database.start()
    assert database.ready() == (True, "away")
    await database.stop()


async def test_text_and_times_come_back_as_they_were(database: Database) -> None:
    moscow = NOW.astimezone(timezone(timedelta(hours=3)))
    row = key_row("не\0т\ud800") | {"created_at": moscow}
    await database.run(lambda c: c.execute(insert(tables.api_key), row))
    stored = await database.run(lambda c: c.execute(select(tables.api_key)).one())
    assert stored.name == "нет?"
    assert stored.created_at == NOW
    assert stored.created_at.tzinfo is UTC


def key_row(name: str, revoked: bool = False) -> dict[str, object]:
    return {
        "name": name,
        "digest": f"digest of {name}",
        "scopes": ["speak", "admin"],
        "created_at": NOW,
        "expires_at": NOW,
        "revoked": revoked,
    }


async def test_api_keys_are_read_without_the_revoked(database: Database) -> None:
    rows = [key_row("page"), key_row("old", revoked=True)]
    await database.run(lambda c: c.execute(insert(tables.api_key), rows))
    assert await database.run(read_api_keys) == [
        KeyRow("page", "digest of page", ("speak", "admin"), NOW)
    ]


async def test_a_deployment_is_written_down(database: Database) -> None:
    for _ in range(2):  # told twice, written once
        await asyncio.to_thread(record_deployment, database.url, DEPLOYED)
    row = await database.run(lambda c: c.execute(select(tables.deployment_event)).one())
    assert (row.model, row.generation, row.before) == ("nlu", 2, {"generation": 1})
    assert (row.at, row.actor, row.reason) == (NOW, "anna", "so it is")


async def test_generations_that_begin_again_are_written_down(database: Database) -> None:
    """A folder of models was restored from an older copy."""
    again = DEPLOYED | {"after": {"generation": 2, "since": "2026-11-21T12:00:00+00:00"}}
    for event in (DEPLOYED, again):
        await asyncio.to_thread(record_deployment, database.url, event)
    rows = await database.run(lambda c: c.execute(select(tables.deployment_event)).all())
    assert [row.generation for row in rows] == [2, 2]


def test_a_deployment_does_not_need_the_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record_deployment(f"postgresql+psycopg://govor@/postgres?host={tmp_path}", DEPLOYED)
    assert "deployment of nlu not recorded" in caplog.text


@pytest.mark.parametrize("place", ["sqlite:///{}/new/govor.db", "sqlite:///{}/file/govor.db", "?"])
def test_a_deployment_does_not_need_a_migrated_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    (tmp_path / "file").touch()
    record_deployment(place.format(tmp_path), DEPLOYED)
    assert "deployment of nlu not recorded" in caplog.text


def test_an_error_does_not_quote_what_people_said(url: str) -> None:
    with pytest.raises(SQLAlchemyError, match="nowhere") as error, transaction(url) as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:said)"), {"said": "my secret"})
    assert "my secret" not in str(error.value)


def test_what_people_said_is_not_readable_by_others(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path}/govor.db")
    assert (tmp_path / "govor.db").stat().st_mode & 0o077 == 0
