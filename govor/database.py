"""The database: its engine, its migration, and the one thread of an app that uses it.

SQLAlchemy Core on synchronous drivers: sqlite3 and psycopg 3. The tables are in `govor.tables`.
Nothing here runs on the event loop, and nothing waits for a database that is away: `Database.run`
raises `Unavailable` after its timeout, and at once while an earlier transaction has hung for longer
than that. Callers then go on from memory and spool (`govor.spool`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Engine,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)

from govor.config import ConfigurationError
from govor.errors import Unavailable
from govor.keys import KeyRow
from govor.tables import api_key, deployment_event

log = logging.getLogger(__name__)
T = TypeVar("T")

REVISION = "0003"
"""The Alembic revision this code was written for; a test compares it with the scripts."""

_MIGRATION_LOCK = 0x676F766F72  # "govor": the key of PostgreSQL's advisory lock
_MIGRATION_SECONDS = 60  # how long one waits for others who migrate on a slow machine


def make_engine(url: str, lock_seconds: int = 5) -> Engine:
    """An engine for one thread; its waits are bounded on both databases. Its errors, which are
    logged, do not quote the values that a statement was given: people said them."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(url, Path(parsed.database or ""), lock_seconds)
    # Keepalives and tcp_user_timeout find a machine that vanished, the server's own timeouts end
    # what is stuck behind a lock. A ping before each transaction costs 0.1 ms and reconnects.
    return create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={
            "client_encoding": "utf8",
            "connect_timeout": 3,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
            "options": f"-c statement_timeout={lock_seconds + 5}s -c lock_timeout={lock_seconds}s "
            "-c idle_in_transaction_session_timeout=30s",
        },
    )


def _sqlite_engine(url: str, file: Path, lock_seconds: int) -> Engine:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch(mode=0o600)  # what people said; -wal and -shm inherit the mode
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"timeout": lock_seconds, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver's own BEGIN is deferred; ours is not
        _write_ahead(connection, time.monotonic() + lock_seconds)
        # No fsync a commit: a killed process loses nothing, a power cut the last moments.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA secure_delete=ON")  # what is deleted is overwritten

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that begins by reading and then writes fails at once when another wrote
        # in between; one that is immediate waits its turn (busy_timeout).
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _write_ahead(connection: Any, until: float) -> None:
    """Waits its turn, which SQLite does not where several change the mode of a new file."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
        time.sleep(0.01)


@contextlib.contextmanager
def transaction(url: str, lock_seconds: int = 5) -> Iterator[Connection]:
    """One transaction on a connection of its own, for commands."""
    engine = make_engine(url, lock_seconds)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def insert_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows that no unique key of the table refuses."""
    if rows:
        connection.execute(_unless_there(connection, table), list(rows))


def insert_one(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless a unique key of the table refuses it; whether it is new."""
    statement = _unless_there(connection, table).execution_options(preserve_rowcount=True)
    return connection.execute(statement, row).rowcount == 1


def _unless_there(connection: Connection, table: Table) -> Any:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).on_conflict_do_nothing()


Job = tuple["Future[Any]", Callable[[Connection], Any]]


class Database:
    """One thread, one connection, transactions in the order they were asked for.

    A part of a service: it is ready unless the schema is another revision than this code's. A
    database that is away does not make a service unready: it works from memory and spool.
    """

    def __init__(self, url: str, *, watch_seconds: float = 5.0) -> None:
        self.url = url
        self.away = False
        self._engine = make_engine(url)
        self._watch_seconds = watch_seconds
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._running_since: float | None = None
        self._revision: str | None = REVISION
        self._watcher: asyncio.Task[None] | None = None
        # A daemon: a process must be able to end while PostgreSQL hangs.
        self._thread = threading.Thread(target=self._work, name="database", daemon=True)

    async def start(self) -> None:
        self._thread.start()
        await self._look()
        self._watcher = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Let the transactions under way finish, for at most a second."""
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, 1.0)

    def ready(self) -> tuple[bool, str]:
        if self._revision != REVISION:
            return (
                False,
                f"revision {self._revision}, {REVISION} is needed: python -m services init",
            )
        return True, "away" if self.away else "ok"

    async def run(self, work: Callable[[Connection], T], timeout: float = 5.0) -> T:
        """`work` in a transaction of its own; its result.

        Raises `Unavailable` when that takes longer than `timeout` seconds or the connection is
        lost. A transaction that had begun may still be committed after that: `work` must be
        harmless when it is repeated.
        """
        since = self._running_since
        if since is not None and time.monotonic() - since > timeout:
            raise _unavailable("an earlier transaction hangs")
        future: Future[T] = Future()
        self._jobs.put((future, work))
        try:
            # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes as it ends.
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self.away = True
            raise _unavailable(f"no answer within {timeout:g} s") from None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                self._running_since = time.monotonic()
                try:
                    future.set_result(self._transaction(work))
                except BaseException as error:
                    future.set_exception(error)
                self._running_since = None
            del job, future, work
        self._engine.dispose()

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                result = work(connection)
        except (IntegrityError, DataError, ProgrammingError, NotSupportedError):
            raise  # our mistake, not the database's absence
        except DBAPIError as error:
            self.away = True
            raise _unavailable(str(error.orig)) from error
        self.away = False
        return result

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._watch_seconds)
            await self._look()

    async def _look(self) -> None:
        with contextlib.suppress(Unavailable, SQLAlchemyError):
            self._revision = await self.run(read_revision, 1.0)


def _unavailable(why: str) -> Unavailable:
    return Unavailable(f"the database is away: {why}", code="database_unavailable")


def read_revision(connection: Connection) -> str | None:
    """The revision of the schema; None before the first migration."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def migrate(url: str) -> None:
    """Bring the schema to this code's revision; safe when several processes do it at once.

    Only the embedded start and `python -m services init` call it. One transaction, under SQLite's
    write lock or an advisory lock of PostgreSQL. Raises `ConfigurationError` when the database
    cannot be reached, the URL names none or the schema is another version's.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "govor:migrations")
    try:
        with transaction(url, _MIGRATION_SECONDS) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(f"GOVOR_DATABASE_URL cannot be used: {reason}") from None
    except CommandError as error:
        raise ConfigurationError(
            f"the database was migrated by another version of Govor ({error}): run that one, "
            "or restore what was kept before it"
        ) from None


def read_api_keys(connection: Connection) -> list[KeyRow]:
    """The keys that are not revoked; whoever compares them looks at `expires_at`."""
    rows = connection.execute(select(api_key).where(~api_key.c.revoked)).all()
    return [KeyRow(row.name, row.digest, tuple(row.scopes), row.expires_at) for row in rows]


def record_deployment(url: str, event: Mapping[str, Any]) -> None:
    """Write down a deployment that took effect, a `govor.repository.Event`; a repeat adds no row.

    Synchronous, with a connection of its own: `govor.repository.deploy` is called a few times a
    day, by commands too, and calls this under the model's lock, so that one looks at a time.
    Files serve, tables explain: without a database the log has to do.
    """
    after, table = event["after"], deployment_event
    row = {"at": datetime.fromisoformat(after["since"]), "generation": after["generation"], **event}
    # Generations begin again where models are restored from an older copy; moments do not.
    same = [table.c[name] == row[name] for name in ("model", "generation", "at")]
    try:
        with transaction(url) as connection:
            if connection.scalar(select(table.c.id).where(*same)) is None:
                connection.execute(insert(table), row)
    except (SQLAlchemyError, OSError) as error:
        why = str(error).splitlines()[0]
        log.error("deployment of %s not recorded (%s): %s", event["model"], why, after)
