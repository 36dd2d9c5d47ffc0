"""The prediction log: what each model answered, kept as far as the person consented.

A record goes into a bounded queue in memory, from there in batches to the database, and to a spool
on disk while the database is away: never on the request's path. The id is the key, so a batch that
is written twice counts once.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import cast, get_args

from sqlalchemy import select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from govor.config import Consent
from govor.database import Database, insert_new
from govor.errors import Unavailable
from govor.masking import mask
from govor.spool import Record, Spool
from govor.tables import conversation, prediction

log = logging.getLogger(__name__)

CONSENT_HEADER = "x-govor-consent"
"""How the gateway tells a service the conversation's consent; believed from the internal key."""
TURN_HEADER = "x-govor-turn"
"""And to which turn the call belongs."""

KEEPS_TEXT: frozenset[Consent] = frozenset({"store", "audio", "train"})
"""Consents under which a prediction keeps its (masked) text."""

_BATCH = 500


@dataclass(frozen=True)
class Prediction:
    """One answer of one model.

    `input` and `output` are text (a transcript, a reply, entities as JSON); lengths are measured
    by the log where they are text, and given in seconds where they are audio. `timings` in seconds.
    `status` is the request's outcome, as in `model_requests_total`.
    """

    service: str
    model: str
    version: int | None
    consent: Consent
    status: str = "ok"
    conversation_id: str | None = None
    turn_id: str | None = None
    subject: str | None = None
    variant: str | None = None
    language: str | None = None
    input: str | None = None
    output: str | None = None
    input_seconds: float | None = None
    output_seconds: float | None = None
    intent: str | None = None
    confidence: float | None = None
    timings: dict[str, float] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))


def as_consent(value: str | None, default: Consent) -> Consent:
    """A header's value if it is a consent, else the default."""
    return cast(Consent, value) if value in get_args(Consent) else default


class PredictionLog:
    """A part of a service; it starts after its database and stops before it.

    `spooled` is told how many predictions went to disk, `dropped` how many were lost, to a full
    queue or a full spool.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool,
        *,
        spooled: Callable[[int], object] = lambda count: None,
        dropped: Callable[[int], object] = lambda count: None,
        max_queued: int = 10_000,
        every_seconds: float = 0.5,
    ) -> None:
        self._database = database
        self._spool = spool
        self._spooled = spooled
        self._dropped = dropped
        self._queue: deque[Prediction] = deque()
        self._max_queued = max_queued
        self._every_seconds = every_seconds
        self._task: asyncio.Task[None] | None = None

    def record(self, item: Prediction) -> None:
        """Queue it; never waits and never fails the request."""
        if len(self._queue) >= self._max_queued:
            self._dropped(1)
        else:
            self._queue.append(item)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Write what is queued, to the spool if need be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()

    def ready(self) -> tuple[bool, str]:
        return True, "ok"

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_seconds)
            try:
                await self.flush()
                await self.load()
            except Exception:
                log.exception("predictions: not written, tried again")

    async def flush(self) -> None:
        """Empty the queue into the database, or into the spool while that is away."""
        while self._queue:
            batch = list(islice(self._queue, _BATCH))
            # Masking takes 0.2 ms a text: off the event loop.
            records = await asyncio.to_thread(_records, batch)
            try:
                await self._database.run(partial(_insert, records=records), 2.0)
            except (Unavailable, SQLAlchemyError):
                kept = await asyncio.to_thread(self._spool.write, records)
                (self._spooled if kept else self._dropped)(len(batch))
            # Only now, so that a flush that is cancelled half-way is repeated and loses nothing.
            for _ in batch:
                self._queue.popleft()

    async def load(self) -> None:
        """Move the spool's batches into the database, as long as it takes them."""
        for file in await asyncio.to_thread(self._spool.files):
            try:
                records = await asyncio.to_thread(self._spool.read, file)
                await self._database.run(partial(_insert, records=records))
            except Unavailable:
                return
            except (SQLAlchemyError, ValueError, KeyError) as error:
                self._spool.refuse(file, error)
            else:
                self._spool.remove(file)


def _records(batch: Sequence[Prediction]) -> list[Record]:
    return [_record(item) for item in batch]


def _record(item: Prediction) -> Record:
    """What may be kept of it, ready for JSON."""
    keeps_text = item.consent in KEEPS_TEXT
    return {
        **asdict(item),
        "at": item.at.isoformat(),
        "input": mask(item.input) if item.input and keeps_text else None,
        "output": mask(item.output) if item.output and keeps_text else None,
        "input_chars": None if item.input is None else len(item.input),
        "output_chars": None if item.output is None else len(item.output),
    }


def _insert(connection: Connection, records: Sequence[Record]) -> None:
    named = {record["conversation_id"] for record in records} - {None}
    deleted = set(
        connection.scalars(
            select(conversation.c.id).where(
                conversation.c.id.in_(named), conversation.c.deleted_at.is_not(None)
            )
        )
    )
    rows = [
        {**record, "at": datetime.fromisoformat(record["at"])}
        for record in records
        if record["conversation_id"] not in deleted
    ]
    insert_new(connection, prediction, rows)
