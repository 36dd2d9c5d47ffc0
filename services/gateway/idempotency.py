"""Idempotency keys: a request that is repeated within a day gets the first answer again."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.engine import Connection, Row

from govor.database import Database, insert_new
from govor.errors import Conflict, Unavailable
from govor.tables import idempotency_key

KEPT = timedelta(hours=24)

_PATIENCE_SECONDS = 0.25
_HELD_MARGIN_SECONDS = 5.0
_RECENT = 1024  # answers held in memory, about 2 kB each

Name = tuple[str, str, str]
"""scope (the route), principal (whose key it is), the key itself."""


@dataclass
class Claim:
    """What `begin` found: an `answer` to give again, or the right to make the first one.

    Set `answer` (JSON) when there is one, and `conversation_id` so that it is deleted with the
    conversation. A claim left without an answer lets the next request try again.
    """

    replayed: bool = False
    answer: dict[str, Any] | None = None
    conversation_id: str | None = None


@dataclass
class _Recent:
    at: datetime
    body_digest: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    answer: dict[str, Any] | None = None
    conversation_id: str | None = None


class Idempotency:
    """Keys and first answers, in the table and, for a database that is away, in memory."""

    def __init__(
        self, database: Database, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._database = database
        self._now = now
        self._recent: OrderedDict[Name, _Recent] = OrderedDict()
        self._holder = uuid.uuid4().hex

    @asynccontextmanager
    async def begin(
        self, key: str | None, scope: str, principal: str, body_digest: str, deadline: float
    ) -> AsyncIterator[Claim]:
        """Wait for a request with the same key that is under way, until `deadline` (monotonic).

        No `key`, no claim: the answer is not kept. Raises `Conflict`: `idempotency_conflict` for
        another body under the same key, `in_progress` when the first request does not end.
        """
        claim = Claim()
        if key is None:
            yield claim
            return
        name = (scope, principal, key)
        recent = self._of(name, body_digest)
        recent.users += 1
        try:
            await _acquire(recent.lock, deadline)
            try:
                await self._find(name, recent, claim, deadline)
                try:
                    yield claim
                finally:
                    if not claim.replayed:
                        await self._finish(name, recent, claim)
            finally:
                recent.lock.release()
        finally:
            recent.users -= 1
            self._forget(name)

    def forget(self, conversation_id: str) -> None:
        """Let go of the answers of a deleted conversation; the table's go with it."""
        self._recent = OrderedDict(
            (name, recent)
            for name, recent in self._recent.items()
            if recent.users or recent.conversation_id != conversation_id
        )

    def _of(self, name: Name, body_digest: str) -> _Recent:
        now = self._now()
        recent = self._recent.get(name)
        if recent is None or (recent.at <= now - KEPT and not recent.users):
            recent = self._recent[name] = _Recent(now, body_digest)
        if recent.body_digest != body_digest:
            raise _other_body()
        self._recent.move_to_end(name)
        return recent

    def _forget(self, done: Name) -> None:
        if self._recent[done].answer is None and not self._recent[done].users:
            del self._recent[done]
        for name in list(self._recent)[: max(0, len(self._recent) - _RECENT)]:
            if not self._recent[name].users:
                del self._recent[name]

    async def _find(self, name: Name, recent: _Recent, claim: Claim, deadline: float) -> None:
        """The first answer into the claim, from memory or the table, or a hold on the key."""
        while recent.answer is None:
            now = self._now()
            until = now + timedelta(seconds=deadline - time.monotonic() + _HELD_MARGIN_SECONDS)
            hold = partial(
                _hold,
                name=name,
                body_digest=recent.body_digest,
                holder=self._holder,
                now=now,
                until=until,
            )
            try:
                held, recent.answer = await self._database.run(hold, _PATIENCE_SECONDS)
            except Unavailable:
                return
            if held:
                return
            if recent.answer is None:
                if time.monotonic() + 0.1 > deadline:
                    raise _in_progress()
                await asyncio.sleep(0.1)
        claim.replayed, claim.answer = True, recent.answer

    async def _finish(self, name: Name, recent: _Recent, claim: Claim) -> None:
        recent.answer, recent.conversation_id = claim.answer, claim.conversation_id
        keep = partial(
            _keep,
            name=name,
            holder=self._holder,
            answer=claim.answer,
            conversation_id=claim.conversation_id,
        )
        try:
            await self._database.run(keep, _PATIENCE_SECONDS)
        except Unavailable:
            return  # this process answers repeats from memory


async def _acquire(lock: asyncio.Lock, deadline: float) -> None:
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            await lock.acquire()
    except TimeoutError:
        raise _in_progress() from None


def _where(name: Name) -> Any:
    scope, principal, key = name
    table = idempotency_key.c
    return (table.scope == scope) & (table.principal == principal) & (table.key == key)


def _hold(
    connection: Connection,
    name: Name,
    body_digest: str,
    holder: str,
    now: datetime,
    until: datetime,
) -> tuple[bool, dict[str, Any] | None]:
    """Whether the key is ours to answer now, else the answer, else neither: another is at it."""
    connection.execute(
        delete(idempotency_key).where(_where(name), idempotency_key.c.created_at <= now - KEPT)
    )
    scope, principal, key = name
    insert_new(
        connection,
        idempotency_key,
        [
            {
                "scope": scope,
                "principal": principal,
                "key": key,
                "body_digest": body_digest,
                "holder": holder,
                "held_until": until,
                "created_at": now,
            }
        ],
    )
    statement = select(idempotency_key).where(_where(name)).with_for_update()
    row: Row[Any] = connection.execute(statement).one()
    if row.body_digest != body_digest:
        raise _other_body()
    if row.answer is not None:
        return False, row.answer
    if row.holder != holder and row.held_until > now:
        return False, None
    connection.execute(
        update(idempotency_key).where(_where(name)).values(holder=holder, held_until=until)
    )
    return True, None


def _keep(
    connection: Connection,
    name: Name,
    holder: str,
    answer: dict[str, Any] | None,
    conversation_id: str | None,
) -> None:
    """The first answer into the row; without one the key is free again."""
    mine = _where(name) & (idempotency_key.c.holder == holder)
    if answer is None:
        connection.execute(delete(idempotency_key).where(mine))
    else:
        connection.execute(
            update(idempotency_key)
            .where(mine)
            .values(answer=answer, conversation_id=conversation_id)
        )


def _other_body() -> Conflict:
    return Conflict(
        "this Idempotency-Key was used with another body",
        code="idempotency_conflict",
        param="Idempotency-Key",
    )


def _in_progress() -> Conflict:
    return Conflict(
        "the first request with this Idempotency-Key is still under way",
        code="in_progress",
        param="Idempotency-Key",
        retry_after=1.0,
    )
