"""What the gateway does to the tables `conversation`, `turn` and `feedback`.

Each function runs in one transaction on the database's thread. All may be repeated: a transaction
that its caller gave up on may have been committed.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, exists, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.engine import Connection, Row

from govor.config import Consent
from govor.database import insert_new
from govor.errors import Conflict, NotFound
from govor.masking import mask
from govor.schemas.turn import FeedbackRequest, StoredConversation, StoredTurn
from govor.spool import Record
from govor.tables import conversation, feedback, idempotency_key, prediction, turn

# The statements of every turn are built once: building them takes as long as running them.
_FIND = select(conversation).where(conversation.c.id == bindparam("key")).with_for_update()
_LEASE = update(conversation).where(conversation.c.id == bindparam("key"))
_ADVANCE = update(conversation).where(
    conversation.c.id == bindparam("key"),
    conversation.c.version == bindparam("opened_version"),
    conversation.c.subject.is_not_distinct_from(bindparam("owner")),
    conversation.c.deleted_at.is_(None),
)
_INSERT_TURN = insert(turn)


@dataclass
class Conversation:
    """A conversation during a turn. `version` counts its turns; `leased`: the row is held too."""

    id: str
    domain: str
    language: str | None
    subject: str | None
    consent: Consent
    state: dict[str, Any]
    version: int
    created_at: datetime
    leased: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Lease:
    holder: str
    now: datetime
    length: timedelta


def check(found: Conversation, subject: str | None, domain: str | None) -> None:
    """Whose it is, and what about: raises `NotFound` or `Conflict`."""
    if found.subject != subject:
        raise _unknown(found.id)
    if domain is not None and domain != found.domain:
        raise Conflict(
            f"the conversation is in the domain {found.domain!r} and keeps it",
            code="conversation_domain",
            param="domain",
        )


def take(
    connection: Connection, begun: Conversation, domain: str | None, lease: Lease
) -> Conversation | None:
    """The conversation with a lease on its row, begun when there is none; None: another has it.

    Raises as `check` does, and then takes no lease.
    """
    row = _find(connection, begun.id)
    if row is None or row.deleted_at is not None:
        if row is None:
            insert_new(connection, conversation, [_new_row(begun, lease.now)])
        else:
            _begin_again(connection, begun, lease.now)
        row = _find(connection, begun.id)
        assert row is not None
    found = Conversation(
        id=row.id,
        domain=row.domain,
        language=row.language,
        subject=row.subject,
        consent=row.consent,
        state=row.state or {},
        version=row.version,
        created_at=row.created_at,
        leased=True,
    )
    check(found, begun.subject, domain)
    if row.lease_holder not in (None, lease.holder) and row.lease_until > lease.now:
        return None
    connection.execute(
        _LEASE,
        {
            "key": begun.id,
            "lease_holder": lease.holder,
            "lease_until": lease.now + lease.length,
        },
    )
    return found


def release(connection: Connection, conversation_id: str, holder: str) -> None:
    connection.execute(
        update(conversation)
        .where(conversation.c.id == conversation_id, conversation.c.lease_holder == holder)
        .values(lease_holder=None, lease_until=None)
    )


def record_of(opened: Conversation, spoken: StoredTurn, now: datetime) -> Record:
    """A turn and the conversation after it, masked, as JSON: what is written, now or later."""
    at_open = asdict(opened) | {"created_at": opened.created_at.isoformat()}
    del at_open["leased"]
    kept = spoken.model_dump(exclude={"turn_id"}) | {
        "id": spoken.turn_id,
        "conversation_id": opened.id,
        "utterance": None if spoken.utterance is None else mask(spoken.utterance),
        "reply": None if spoken.reply is None else mask(spoken.reply),
    }
    return {"conversation": at_open, "turn": kept, "at": now.isoformat()}


def conversation_of(record: Record) -> Conversation:
    """The conversation after the turn of a record."""
    fields = dict(record["conversation"])
    fields["version"] += 1
    fields["created_at"] = datetime.fromisoformat(fields["created_at"])
    return Conversation(**fields)


def write_all(connection: Connection, records: list[Record]) -> None:
    """Load records that waited in the spool."""
    for record in records:
        write(connection, record, leased=False)


def write(connection: Connection, record: Record, leased: bool) -> None:
    """Insert a turn and set the state, if that is still at the version the turn began with.

    When it is not, a turn that held the lease is refused with `Conflict`; one that was spoken while
    the database was away is kept, and the state stays as others have brought it on since.
    """
    after = conversation_of(record)
    at = datetime.fromisoformat(record["at"])
    spoken = record["turn"] | {"at": datetime.fromisoformat(record["turn"]["at"])}
    changed = connection.execute(
        _ADVANCE,
        {
            "key": after.id,
            "opened_version": after.version - 1,
            "owner": after.subject,
            "language": after.language,
            "consent": after.consent,
            "state": after.state,
            "version": after.version,
            "lease_holder": None,
            "lease_until": None,
            "updated_at": at,
        },
    )
    if changed.rowcount or _belongs(connection, after, spoken, at, leased):
        connection.execute(_INSERT_TURN, spoken)


def _belongs(
    connection: Connection, after: Conversation, spoken: Record, at: datetime, leased: bool
) -> bool:
    """Whether a turn that did not meet the version it began with is to be inserted still."""
    if connection.scalar(select(exists().where(turn.c.id == spoken["id"]))):
        return False  # written by a transaction that the caller had given up on
    row = _find(connection, after.id)
    if row is None:
        connection.execute(insert(conversation), _new_row(after, at))
    elif row.deleted_at is not None:
        if row.deleted_at >= after.created_at:
            return False  # deleted while the turn was under way
        _begin_again(connection, after, at)
    elif leased:
        raise Conflict(
            "another turn of this conversation was written meanwhile", code="conversation_busy"
        )
    elif row.subject != after.subject:
        # Begun without the database under an id that is somebody else's: not theirs to read.
        after.id = spoken["conversation_id"] = uuid.uuid4().hex
        connection.execute(insert(conversation), _new_row(after, at))
    return True


def read(connection: Connection, conversation_id: str, subject: str | None) -> StoredConversation:
    row = _owned(connection, conversation_id, subject)
    spoken = select(turn).where(turn.c.conversation_id == row.id).order_by(turn.c.at)
    return StoredConversation(
        conversation_id=row.id,
        domain=row.domain,
        consent=row.consent,
        created_at=row.created_at.isoformat(),
        turns=[
            StoredTurn(
                turn_id=each.id,
                at=each.at.isoformat(),
                language=each.language,
                utterance=each.utterance,
                intent=each.intent,
                confidence=each.confidence,
                reply=each.reply,
                steps=each.steps,
                degraded=each.degraded,
            )
            for each in connection.execute(spoken)
        ],
    )


def delete(
    connection: Connection, conversation_id: str, subject: str | None, now: datetime
) -> None:
    """Remove what is kept of a conversation; its empty row says for a day that it is deleted."""
    _owned(connection, conversation_id, subject)
    for table in (feedback, turn, prediction, idempotency_key):
        connection.execute(delete_from(table).where(table.c.conversation_id == conversation_id))
    connection.execute(
        update(conversation)
        .where(conversation.c.id == conversation_id)
        .values(state=None, subject=None, deleted_at=now, lease_holder=None, lease_until=None)
    )


def feedback_row(request: FeedbackRequest, now: datetime) -> dict[str, Any]:
    """Feedback as it is stored: what the person wrote is masked."""
    entities = request.corrected_entities
    return {
        "id": uuid.uuid4().hex,
        "turn_id": request.turn_id,
        "at": now,
        "rating": request.rating,
        "corrected_transcript": _masked(request.corrected_transcript),
        "corrected_intent": request.corrected_intent,
        "corrected_entities": entities and [_masked_entity(each.model_dump()) for each in entities],
        "comment": _masked(request.comment),
    }


def add_feedback(connection: Connection, row: dict[str, Any], subject: str | None) -> None:
    """Insert it beside its turn; raises `NotFound` (`turn_not_found`)."""
    conversation_id = connection.scalar(
        select(turn.c.conversation_id)
        .join(conversation)
        .where(
            turn.c.id == row["turn_id"],
            conversation.c.subject.is_not_distinct_from(subject),
        )
    )
    if conversation_id is None:
        raise NotFound("no such turn", code="turn_not_found", param="turn_id")
    insert_new(connection, feedback, [row | {"conversation_id": conversation_id}])


def _masked(text: str | None) -> str | None:
    return None if text is None else mask(text)


def _masked_entity(entity: dict[str, Any]) -> dict[str, Any]:
    value = entity["value"]
    return entity | {"value": mask(value) if isinstance(value, str) else value}


def _find(connection: Connection, conversation_id: str) -> Row[Any] | None:
    return connection.execute(_FIND, {"key": conversation_id}).one_or_none()


def _owned(connection: Connection, conversation_id: str, subject: str | None) -> Row[Any]:
    row = _find(connection, conversation_id)
    if row is None or row.deleted_at is not None or row.subject != subject:
        raise _unknown(conversation_id)
    return row


def _new_row(begun: Conversation, now: datetime) -> dict[str, Any]:
    fields = asdict(begun)
    del fields["leased"]
    return fields | {"updated_at": now}


def _begin_again(connection: Connection, begun: Conversation, now: datetime) -> None:
    """A new conversation in the row that a deleted one left."""
    connection.execute(
        update(conversation)
        .where(conversation.c.id == begun.id)
        .values(**_new_row(begun, now), deleted_at=None, lease_holder=None, lease_until=None)
    )


def _unknown(conversation_id: str) -> NotFound:
    return NotFound(
        f"no conversation {conversation_id!r}",
        code="conversation_not_found",
        param="conversation_id",
    )
