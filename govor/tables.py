"""The tables: one schema on SQLite and PostgreSQL. `govor/migrations` makes it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypeDecorator,
    or_,
)


class Clean(TypeDecorator[str]):
    """Text that both databases take: PostgreSQL refuses NUL, and neither encodes a lone surrogate,
    which a JSON body may hold as an escape."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


class Instant(TypeDecorator[datetime]):
    """An aware UTC time: `timestamptz` on PostgreSQL; SQLite keeps no zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

conversation = Table(
    "conversation",
    metadata,
    Column("id", Clean, primary_key=True),
    Column("domain", Clean, nullable=False),
    Column("language", Clean),
    Column("subject", Clean),
    Column("consent", Clean, nullable=False),
    # Slots as the user gave them, not masked: working memory, emptied after a day of silence.
    Column("state", JSON(none_as_null=True)),
    # Counts the turns written; a turn is written only over the version it was opened at.
    Column("version", Integer, nullable=False),
    Column("lease_holder", Clean),
    Column("lease_until", Instant),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    # A deleted conversation leaves its id for a day, so that what was under way does not revive it.
    Column("deleted_at", Instant),
    Index("conversation_updated_at", "updated_at"),
    Index("conversation_subject", "subject"),
)

turn = Table(
    "turn",
    metadata,
    Column("id", Clean, primary_key=True),
    Column("conversation_id", ForeignKey("conversation.id", ondelete="CASCADE"), nullable=False),
    Column("at", Instant, nullable=False),
    Column("language", Clean, nullable=False),
    Column("utterance", Clean),
    Column("intent", Clean),
    Column("confidence", Double),
    Column("reply", Clean),
    Column("steps", JSON, nullable=False),
    Column("degraded", JSON, nullable=False),
    Index("turn_conversation", "conversation_id", "at"),
)
# The hourly sweep looks only at what still has text.
_has_text = or_(turn.c.utterance.is_not(None), turn.c.reply.is_not(None))
Index("turn_text", turn.c.at, sqlite_where=_has_text, postgresql_where=_has_text)

feedback = Table(
    "feedback",
    metadata,
    Column("id", Clean, primary_key=True),
    Column("turn_id", ForeignKey("turn.id", ondelete="CASCADE"), nullable=False),
    Column("conversation_id", ForeignKey("conversation.id", ondelete="CASCADE"), nullable=False),
    Column("at", Instant, nullable=False),
    Column("rating", Integer, nullable=False),
    Column("corrected_transcript", Clean),
    Column("corrected_intent", Clean),
    Column("corrected_entities", JSON(none_as_null=True)),
    Column("comment", Clean),
    Index("feedback_turn", "turn_id"),
    Index("feedback_conversation", "conversation_id"),
    Index("feedback_at", "at"),
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    Column("scope", Clean, nullable=False),
    Column("principal", Clean, nullable=False),
    Column("key", Clean, nullable=False),
    Column("body_digest", Clean, nullable=False),
    Column("answer", JSON(none_as_null=True)),
    Column("conversation_id", Clean),
    Column("holder", Clean, nullable=False),
    Column("held_until", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
    PrimaryKeyConstraint("scope", "principal", "key"),
    Index("idempotency_key_created_at", "created_at"),
    Index("idempotency_key_conversation", "conversation_id"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("name", Clean, primary_key=True),
    Column("digest", Clean, nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("revoked", Boolean, nullable=False),
)

# No foreign keys: predictions are written by other services, and before their turn is.
prediction = Table(
    "prediction",
    metadata,
    Column("id", Clean, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("conversation_id", Clean),
    Column("turn_id", Clean),
    Column("subject", Clean),
    Column("consent", Clean, nullable=False),
    Column("service", Clean, nullable=False),
    Column("model", Clean, nullable=False),
    Column("version", Integer),
    Column("variant", Clean),
    Column("language", Clean),
    Column("input", Clean),
    Column("output", Clean),
    Column("input_chars", Integer),
    Column("output_chars", Integer),
    Column("input_seconds", Double),
    Column("output_seconds", Double),
    Column("intent", Clean),
    Column("confidence", Double),
    Column("timings", JSON, nullable=False),
    Column("status", Clean, nullable=False),
    Index("prediction_at", "at"),
    Index("prediction_conversation", "conversation_id"),
    Index("prediction_subject", "subject"),
)
_has_text = or_(prediction.c.input.is_not(None), prediction.c.output.is_not(None))
Index("prediction_text", prediction.c.at, sqlite_where=_has_text, postgresql_where=_has_text)

deployment_event = Table(
    "deployment_event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("model", Clean, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    # Who did it (the name of a key, "trainer" ...) and what for ("job 4f1c", "rollback").
    Column("actor", Clean, nullable=False),
    Column("reason", Clean),
    Index("deployment_event_model", "model", "generation"),
)

# What is to be trained and how far it is. The queue in Redis only wakes a worker up.
job = Table(
    "job",
    metadata,
    Column("id", Clean, primary_key=True),
    Column("recipe", Clean, nullable=False),
    Column("domain", Clean),
    Column("dataset", Clean),
    Column("params", JSON, nullable=False),
    Column("queue", Clean, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", Clean, nullable=False),
    Column("idempotency_key", Clean),
    Column("requested_by", Clean, nullable=False),
    Column("reason", Clean),
    Column("retry_of", Clean),
    Column("starts", Integer, nullable=False),
    # A worker holds a running job by its token; whoever lost the lease writes no more.
    Column("lease_token", Clean),
    Column("lease_until", Instant),
    Column("worker", Clean),
    Column("device", Clean),
    Column("device_reason", Clean),
    Column("cancel_requested", Boolean, nullable=False),
    Column("progress", JSON(none_as_null=True)),
    Column("result", JSON(none_as_null=True)),
    Column("error", Clean),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    # When a worker last gave it back: it waits since then.
    Column("returned_at", Instant),
    Column("finished_at", Instant),
    Index("job_state", "state", "queue", "priority"),
    Index("job_created_at", "created_at"),
)
_live = job.c.state.in_(("queued", "running"))
Index(
    "job_live_key", job.c.idempotency_key, unique=True, sqlite_where=_live, postgresql_where=_live
)

job_log = Table(
    "job_log",
    metadata,
    Column("job_id", ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Column("line", Clean, nullable=False),
    PrimaryKeyConstraint("job_id", "number"),
)

schedule = Table(
    "schedule",
    metadata,
    Column("name", Clean, primary_key=True),
    Column("cron", Clean, nullable=False),
    Column("recipe", Clean, nullable=False),
    Column("domain", Clean),
    Column("params", JSON, nullable=False),
    Column("queue", Clean, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
)

# One row a moment at which a schedule was due: two that tick at once start one job.
run = Table(
    "run",
    metadata,
    Column("schedule", ForeignKey("schedule.name", ondelete="CASCADE"), nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("job_id", Clean, nullable=False),
    PrimaryKeyConstraint("schedule", "due_at"),
)

dataset_version = Table(
    "dataset_version",
    metadata,
    Column("name", Clean, nullable=False),
    Column("digest", Clean, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("sources", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    PrimaryKeyConstraint("name", "digest"),
)

model_version = Table(
    "model_version",
    metadata,
    Column("model", Clean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("state", Clean, nullable=False),  # published, rejected
    Column("recipe", Clean, nullable=False),
    Column("domain", Clean),
    Column("parent", Integer),
    Column("job_id", Clean),
    Column("dataset_digest", Clean),
    Column("metrics", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    PrimaryKeyConstraint("model", "version"),
)

# What a version scored on a frozen set: at its gate, and whenever the champion is looked at again.
evaluation = Table(
    "evaluation",
    metadata,
    Column("id", Clean, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("model", Clean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("domain", Clean),
    Column("language", Clean),
    Column("dataset_digest", Clean, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("job_id", Clean),
    Index("evaluation_model", "model", "domain", "at"),
)

gate_decision = Table(
    "gate_decision",
    metadata,
    Column("id", Clean, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("job_id", Clean, nullable=False),
    Column("model", Clean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("champion", Integer),
    Column("passed", Boolean, nullable=False),
    # Each with name, value, limit, passed, reason.
    Column("checks", JSON, nullable=False),
    Index("gate_decision_model", "model", "version"),
    Index("gate_decision_job", "job_id"),
)
