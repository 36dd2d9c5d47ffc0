"""Conversations, feedback, keys, predictions, deployments."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "conversation",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("domain", sa.Text, nullable=False),
        sa.Column("language", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("consent", sa.Text, nullable=False),
        sa.Column("state", sa.JSON),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("lease_holder", sa.Text),
        sa.Column("lease_until", INSTANT),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("updated_at", INSTANT, nullable=False),
        sa.Column("deleted_at", INSTANT),
        sa.Index("conversation_updated_at", "updated_at"),
        sa.Index("conversation_subject", "subject"),
    )
    op.create_table(
        "turn",
        sa.Column("id", sa.Text, primary_key=True),
        _conversation(),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("language", sa.Text, nullable=False),
        sa.Column("utterance", sa.Text),
        sa.Column("intent", sa.Text),
        sa.Column("confidence", sa.Double),
        sa.Column("reply", sa.Text),
        sa.Column("steps", sa.JSON, nullable=False),
        sa.Column("degraded", sa.JSON, nullable=False),
        sa.Index("turn_conversation", "conversation_id", "at"),
    )
    _index_text("turn", "utterance IS NOT NULL OR reply IS NOT NULL")
    op.create_table(
        "feedback",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("turn_id", sa.Text, sa.ForeignKey("turn.id", ondelete="CASCADE"), nullable=False),
        _conversation(),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("rating", sa.Integer, nullable=False),
        sa.Column("corrected_transcript", sa.Text),
        sa.Column("corrected_intent", sa.Text),
        sa.Column("corrected_entities", sa.JSON),
        sa.Column("comment", sa.Text),
        sa.Index("feedback_turn", "turn_id"),
        sa.Index("feedback_conversation", "conversation_id"),
        sa.Index("feedback_at", "at"),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("scope", sa.Text, primary_key=True),
        sa.Column("principal", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("body_digest", sa.Text, nullable=False),
        sa.Column("answer", sa.JSON),
        sa.Column("conversation_id", sa.Text),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("held_until", INSTANT, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Index("idempotency_key_created_at", "created_at"),
        sa.Index("idempotency_key_conversation", "conversation_id"),
    )
    op.create_table(
        "api_key",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT),
        sa.Column("revoked", sa.Boolean, nullable=False),
    )
    op.create_table(
        "prediction",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("conversation_id", sa.Text),
        sa.Column("turn_id", sa.Text),
        sa.Column("subject", sa.Text),
        sa.Column("consent", sa.Text, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("variant", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("input", sa.Text),
        sa.Column("output", sa.Text),
        sa.Column("input_chars", sa.Integer),
        sa.Column("output_chars", sa.Integer),
        sa.Column("input_seconds", sa.Double),
        sa.Column("output_seconds", sa.Double),
        sa.Column("intent", sa.Text),
        sa.Column("confidence", sa.Double),
        sa.Column("timings", sa.JSON, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Index("prediction_at", "at"),
        sa.Index("prediction_conversation", "conversation_id"),
        sa.Index("prediction_subject", "subject"),
    )
    _index_text("prediction", "input IS NOT NULL OR output IS NOT NULL")
    op.create_table(
        "deployment_event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("before", sa.JSON, nullable=False),
        sa.Column("after", sa.JSON, nullable=False),
        sa.Index("deployment_event_model", "model", "generation"),
    )


def _conversation() -> "sa.Column[str]":
    owner = sa.ForeignKey("conversation.id", ondelete="CASCADE")
    return sa.Column("conversation_id", sa.Text, owner, nullable=False)


def _index_text(table: str, has_text: str) -> None:
    where = sa.text(has_text)
    op.create_index(f"{table}_text", table, ["at"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    for table in (
        "deployment_event",
        "prediction",
        "api_key",
        "idempotency_key",
        "feedback",
        "turn",
        "conversation",
    ):
        op.drop_table(table)
