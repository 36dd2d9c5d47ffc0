"""Conversations: opened for one turn at a time, kept in the database, in memory and on disk.

The turns of a conversation follow one another by a lease on its row and, within the process, by a
lock. A turn waits a quarter of a second for the database, a second when it needs a state that only
the database has: when that is away, an open conversation goes on from memory, a new one begins
there, and the turn waits in the spool, from which it is loaded in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from govor.config import Consent
from govor.database import Database
from govor.errors import Conflict, Unavailable
from govor.schemas.turn import FeedbackRequest, StoredConversation, StoredTurn
from govor.spool import Record, Spool
from services.gateway import rows
from services.gateway.rows import Conversation

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 0.25
"""What a turn waits for the database before it goes on without it."""
_UNKNOWN_PATIENCE_SECONDS = 1.0
"""The same for a conversation that this process has not seen: without the database its state would
be lost for this turn, so a busy one is given more time (one that is known to be away is not)."""
_READ_SECONDS = 2.0
"""What a request that cannot do without the database waits for it."""
_LOAD_SECONDS = 1.0
"""What a file of the spool waits for the database."""
_BUSY_SECONDS = 5.0
"""What a turn waits for the one before it."""
_LEASE_MARGIN_SECONDS = 5.0
"""A lease outlives its turn's deadline by this, so that only a dead process loses it."""
_RECENT = 2048
"""Conversations that are held in memory, a few kB each."""
_UNREADABLE = (ValueError, KeyError, TypeError)
"""What a spooled file raises that is broken, or that another version of this code wrote."""


@dataclass
class _Recent:
    """What this process knows of a conversation."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    last: Conversation | None = None
    spooled: set[Path] = field(default_factory=set)

    def waits(self) -> bool:
        """Whether turns of it are not in the database yet; whoever loads them removes the file."""
        self.spooled = {file for file in self.spooled if file.exists()}
        return bool(self.spooled)


class Conversations:
    """The store of conversations, a part of the gateway; it starts after its database.

    `spooled` is told of turns that went to disk, `dropped` of those that neither the database nor
    the spool could take.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool,
        *,
        default_consent: Consent,
        spooled: Callable[[int], object] = lambda count: None,
        dropped: Callable[[int], object] = lambda count: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        every_seconds: float = 0.5,
    ) -> None:
        self._database = database
        self._spool = spool
        self._default_consent = default_consent
        self._spooled = spooled
        self._dropped = dropped
        self._now = now
        self._every_seconds = every_seconds
        self._recent: OrderedDict[str, _Recent] = OrderedDict()
        # One holder a process, not a turn: a lease taken by a transaction that this process gave
        # up on, and which was committed after all, is its own again at the next turn.
        self._holder = uuid.uuid4().hex
        self._loading = asyncio.Lock()
        self._loader: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the conversations whose turns an earlier process left in the spool."""
        for file in await asyncio.to_thread(self._spool.files):
            with contextlib.suppress(*_UNREADABLE):  # it is set aside when it is loaded
                for record in await asyncio.to_thread(self._spool.read, file):
                    recent = self._of(record["turn"]["conversation_id"])
                    recent.last = rows.conversation_of(record)
                    recent.spooled.add(file)
        self._loader = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._loader is not None:
            self._loader.cancel()
            await asyncio.gather(self._loader, return_exceptions=True)
        if not self._database.away:
            await self.load()

    def ready(self) -> tuple[bool, str]:
        return True, "ok"

    @asynccontextmanager
    async def open(
        self,
        conversation_id: str | None,
        *,
        subject: str | None,
        domain: str | None,
        default_domain: str,
        consent: Consent | None,
        deadline: float,
        begun_consent: Consent | None = None,
    ) -> AsyncIterator[Conversation]:
        """The conversation, for one turn: change its state and language, then `save`.

        `conversation_id` None, or one that is unknown, begins a conversation; `domain` is what the
        caller asked for, `deadline` a `time.monotonic()`. `begun_consent` is what a conversation
        begins with when the caller does not say (the default, when None). Raises `NotFound`
        (`conversation_not_found`) when it is another subject's, `Conflict` when its domain is
        another (`conversation_domain`) or the turn before it does not end (`conversation_busy`).
        """
        now = self._now()
        begun = Conversation(
            id=conversation_id or uuid.uuid4().hex,
            domain=domain or default_domain,
            language=None,
            subject=subject,
            consent=consent or begun_consent or self._default_consent,
            state={},
            version=0,
            created_at=now,
        )
        limit = min(deadline, time.monotonic() + _BUSY_SECONDS)
        async with self._alone(begun.id, limit) as recent:
            known = conversation_id is None or recent.last is not None
            opened = await self._open(begun, domain, recent, known, limit, deadline)
            opened.consent = consent or opened.consent
            try:
                yield opened
            finally:
                if opened.leased:
                    await self._release(opened.id)

    async def save(self, opened: Conversation, turn: StoredTurn) -> None:
        """Write the turn and the state together; the conversation's version grows by one.

        Not interrupted by a caller who disconnects: a reply that was given is kept. Raises
        `Conflict` (`conversation_busy`) when another process wrote a turn in between, which takes
        a lease that ran out.
        """
        saving = asyncio.create_task(self._save(opened, turn))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            await asyncio.gather(saving, return_exceptions=True)
            raise

    async def get(self, conversation_id: str, subject: str | None) -> StoredConversation:
        """Its turns, oldest first; raises `NotFound`, or `Unavailable` without a database."""
        await self._settle(conversation_id)
        return await self._database.run(
            partial(rows.read, conversation_id=conversation_id, subject=subject), _READ_SECONDS
        )

    async def delete(self, conversation_id: str, subject: str | None) -> None:
        """Remove its turns, feedback and predictions; raises as `get` does."""
        async with self._alone(conversation_id, time.monotonic() + _BUSY_SECONDS) as recent:
            await self._settle(conversation_id)
            await self._database.run(
                partial(
                    rows.delete, conversation_id=conversation_id, subject=subject, now=self._now()
                ),
                _READ_SECONDS,
            )
            recent.last = None

    async def feedback(self, request: FeedbackRequest, subject: str | None) -> None:
        """Keep what the person thinks of a turn; raises `NotFound` (`turn_not_found`)."""
        await self.load()
        row = await asyncio.to_thread(rows.feedback_row, request, self._now())
        await self._database.run(
            partial(rows.add_feedback, row=row, subject=subject), _READ_SECONDS
        )

    async def load(self) -> None:
        """Move the spool's turns into the database, in order, as long as it takes them."""
        async with self._loading:
            for file in await asyncio.to_thread(self._spool.files):
                try:
                    records = await asyncio.to_thread(self._spool.read, file)
                    await self._database.run(
                        partial(rows.write_all, records=records), _LOAD_SECONDS
                    )
                except Unavailable:
                    return
                except (SQLAlchemyError, *_UNREADABLE) as error:
                    self._spool.refuse(file, error)
                else:
                    self._spool.remove(file)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_seconds)
            try:
                await self.load()
            except Exception:
                log.exception("conversations: the spool is not loaded, tried again")

    def _of(self, conversation_id: str) -> _Recent:
        recent = self._recent.setdefault(conversation_id, _Recent())
        self._recent.move_to_end(conversation_id)
        return recent

    @asynccontextmanager
    async def _alone(self, conversation_id: str, limit: float) -> AsyncIterator[_Recent]:
        """One turn at a time within the process, in the order they came."""
        recent = self._of(conversation_id)
        recent.users += 1
        try:
            try:
                async with asyncio.timeout(limit - time.monotonic()):
                    await recent.lock.acquire()
            except TimeoutError:
                raise _busy() from None
            try:
                yield recent
            finally:
                recent.lock.release()
        finally:
            recent.users -= 1
            self._forget()

    def _forget(self) -> None:
        """Let go of the conversations that were quiet the longest."""
        for conversation_id in list(self._recent)[: max(0, len(self._recent) - _RECENT)]:
            recent = self._recent[conversation_id]
            if not recent.users and not recent.waits():
                del self._recent[conversation_id]

    async def _open(
        self,
        begun: Conversation,
        domain: str | None,
        recent: _Recent,
        known: bool,
        limit: float,
        deadline: float,
    ) -> Conversation:
        if recent.waits():  # the database's state is older than ours
            return _from_memory(begun, domain, recent)
        hurried = known or self._database.away
        patience = _PATIENCE_SECONDS if hurried else _UNKNOWN_PATIENCE_SECONDS
        length = timedelta(seconds=deadline - time.monotonic() + _LEASE_MARGIN_SECONDS)
        while True:
            lease = rows.Lease(self._holder, self._now(), length)
            take = partial(rows.take, begun=begun, domain=domain, lease=lease)
            try:
                opened = await self._database.run(take, patience)
            except Unavailable:
                return _from_memory(begun, domain, recent)
            if opened is not None:
                return opened
            if time.monotonic() + 0.05 > limit:
                raise _busy()
            await asyncio.sleep(0.05)

    async def _release(self, conversation_id: str) -> None:
        """Give the lease of a turn that was not saved back; if that fails, it runs out."""
        try:
            await self._database.run(
                partial(rows.release, conversation_id=conversation_id, holder=self._holder),
                _PATIENCE_SECONDS,
            )
        except Unavailable as error:
            log.warning("lease not given back: %s", error)

    async def _save(self, opened: Conversation, turn: StoredTurn) -> None:
        recent = self._of(opened.id)
        # Off the event loop: masking takes 0.2 ms, but 0.5 s for the worst of 4,000 characters.
        record = await asyncio.to_thread(rows.record_of, opened, turn, self._now())
        written = False
        if not recent.waits():
            try:
                await self._database.run(
                    partial(rows.write, record=record, leased=opened.leased), _PATIENCE_SECONDS
                )
                written = True
            except Unavailable:
                log.warning("turn %s waits in the spool", turn.turn_id)
        if not written:
            await self._keep(recent, record)
        opened.leased = False
        opened.version += 1
        recent.last = _copy(opened)

    async def _keep(self, recent: _Recent, record: Record) -> None:
        file = await asyncio.to_thread(self._spool.write, [record])
        if file is None:
            self._dropped(1)
            log.error("turn %s is lost: the spool is full", record["turn"]["id"])
        else:
            self._spooled(1)
            recent.spooled.add(file)

    async def _settle(self, conversation_id: str) -> None:
        """See to it that the database has all of a conversation."""
        recent = self._recent.get(conversation_id)
        if recent is not None and recent.waits():
            await self.load()
            if recent.waits():
                raise Unavailable("the database is away", code="database_unavailable")


def _from_memory(begun: Conversation, domain: str | None, recent: _Recent) -> Conversation:
    found = _copy(recent.last or begun)
    rows.check(found, begun.subject, domain)
    return found


def _copy(kept: Conversation) -> Conversation:
    """So that a turn that fails half-way has not changed what is kept."""
    return replace(kept, state=deepcopy(kept.state), leased=False)


def _busy() -> Conflict:
    return Conflict(
        "an earlier turn of this conversation is still under way",
        code="conversation_busy",
        param="conversation_id",
        retry_after=1.0,
    )
