"""Jobs, schedules, dataset and model versions, evaluations, gates; who changed a deployment."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "deployment_event", sa.Column("actor", sa.Text, nullable=False, server_default="unknown")
    )
    op.add_column("deployment_event", sa.Column("reason", sa.Text))
    _jobs()
    _schedules()
    _versions()


def _jobs() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("recipe", sa.Text, nullable=False),
        sa.Column("domain", sa.Text),
        sa.Column("dataset", sa.Text),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("requested_by", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("retry_of", sa.Text),
        sa.Column("starts", sa.Integer, nullable=False),
        sa.Column("lease_token", sa.Text),
        sa.Column("lease_until", INSTANT),
        sa.Column("worker", sa.Text),
        sa.Column("device", sa.Text),
        sa.Column("device_reason", sa.Text),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("progress", sa.JSON),
        sa.Column("result", sa.JSON),
        sa.Column("error", sa.Text),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.Index("job_state", "state", "queue", "priority"),
        sa.Index("job_created_at", "created_at"),
    )
    live = sa.text("state IN ('queued', 'running')")
    op.create_index(
        "job_live_key",
        "job",
        ["idempotency_key"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_table(
        "job_log",
        sa.Column("job_id", sa.Text, sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "number"),
    )


def _schedules() -> None:
    op.create_table(
        "schedule",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("cron", sa.Text, nullable=False),
        sa.Column("recipe", sa.Text, nullable=False),
        sa.Column("domain", sa.Text),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
    )
    op.create_table(
        "run",
        sa.Column(
            "schedule",
            sa.Text,
            sa.ForeignKey("schedule.name", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("schedule", "due_at"),
    )


def _versions() -> None:
    op.create_table(
        "dataset_version",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("sources", sa.JSON, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", "digest"),
    )
    op.create_table(
        "model_version",
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("recipe", sa.Text, nullable=False),
        sa.Column("domain", sa.Text),
        sa.Column("parent", sa.Integer),
        sa.Column("job_id", sa.Text),
        sa.Column("dataset_digest", sa.Text),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("model", "version"),
    )
    op.create_table(
        "evaluation",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("domain", sa.Text),
        sa.Column("language", sa.Text),
        sa.Column("dataset_digest", sa.Text, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("job_id", sa.Text),
        sa.Index("evaluation_model", "model", "domain", "at"),
    )
    op.create_table(
        "gate_decision",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("champion", sa.Integer),
        sa.Column("passed", sa.Boolean, nullable=False),
        sa.Column("checks", sa.JSON, nullable=False),
        sa.Index("gate_decision_model", "model", "version"),
        sa.Index("gate_decision_job", "job_id"),
    )


def downgrade() -> None:
    for table in (
        "gate_decision",
        "evaluation",
        "model_version",
        "dataset_version",
        "run",
        "schedule",
        "job_log",
        "job",
    ):
        op.drop_table(table)
    op.drop_column("deployment_event", "reason")
    op.drop_column("deployment_event", "actor")
