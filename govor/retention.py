"""What is kept only for a time: an hourly sweep deletes it when that has passed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import ColumnElement, Table, and_, delete, exists, not_, or_, update
from sqlalchemy.engine import Connection

from govor.database import Database
from govor.errors import Unavailable
from govor.predictions import KEEPS_TEXT
from govor.tables import conversation, feedback, idempotency_key, prediction, turn

log = logging.getLogger(__name__)

DAY = timedelta(hours=24)
"""How long a conversation's text lives when its person consented to an answer only."""
STORED = timedelta(days=90)
"""How long masked text lives with a consent to store it."""


def sweep(connection: Connection, now: datetime) -> dict[str, int]:
    """Delete what is past its time at `now`; the rows changed, by what they held.

    The consent of now decides, also on what was kept before it was withdrawn. What a conversation
    works with (its slots, first answers under idempotency keys) is not masked and lives a day.
    """
    statements = {
        "turn": update(turn)
        .where(
            or_(turn.c.utterance.is_not(None), turn.c.reply.is_not(None)),
            _past(turn, now),
        )
        .values(utterance=None, reply=None),
        "feedback": update(feedback)
        .where(
            or_(
                feedback.c.corrected_transcript.is_not(None),
                feedback.c.corrected_entities.is_not(None),
                feedback.c.comment.is_not(None),
            ),
            _past(feedback, now),
        )
        .values(corrected_transcript=None, corrected_entities=None, comment=None),
        "prediction": update(prediction)
        .where(
            or_(prediction.c.input.is_not(None), prediction.c.output.is_not(None)),
            prediction.c.at <= now,
            or_(prediction.c.at <= now - STORED, _consents(prediction, keeping=False)),
        )
        .values(input=None, output=None),
        "state": update(conversation)
        .where(conversation.c.updated_at <= now - DAY, conversation.c.state.is_not(None))
        .values(state=None),
        "idempotency_key": delete(idempotency_key).where(idempotency_key.c.created_at <= now - DAY),
        "conversation": delete(conversation).where(conversation.c.deleted_at <= now - DAY),
    }
    return {name: connection.execute(statement).rowcount for name, statement in statements.items()}


def _past(table: Table, now: datetime) -> ColumnElement[bool]:
    """The rows of a conversation's text whose time has passed."""
    spared = and_(table.c.at > now - STORED, _consents(table, keeping=True))
    return and_(table.c.at <= now - DAY, not_(spared))


def _consents(table: Table, *, keeping: bool) -> ColumnElement[bool]:
    """The rows of a conversation whose consent lets text be kept, or does not."""
    consent = conversation.c.consent
    asked = consent.in_(KEEPS_TEXT) if keeping else consent.not_in(KEEPS_TEXT)
    return exists().where(conversation.c.id == table.c.conversation_id, asked)


class Retention:
    """The hourly sweep, a part of the gateway; it starts after its database."""

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        every_seconds: float = 3600.0,
    ) -> None:
        self._database = database
        self._now = now
        self._every_seconds = every_seconds
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ready(self) -> tuple[bool, str]:
        return True, "ok"

    async def _run(self) -> None:
        while True:
            try:
                swept = await self._database.run(partial(sweep, now=self._now()), 60.0)
            except Unavailable as error:
                log.warning("retention: not swept: %s", error)
            except Exception:
                log.exception("retention: not swept")
            else:
                log.info("retention: %s", swept)
            await asyncio.sleep(self._every_seconds)
