"""Wire types of jobs: what is asked of the trainer, and how far it is."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["queued", "running", "done", "failed", "cancelled", "dead"]
"""`failed` by what it did itself, `dead` by workers that died under it."""
Queue = Literal["cpu", "gpu"]

LIVE: tuple[State, ...] = ("queued", "running")
QUEUES: tuple[Queue, ...] = ("cpu", "gpu")


class JobRequest(BaseModel):
    """What to train. `params` are the recipe's own; `queue` is the recipe's unless given."""

    model_config = ConfigDict(extra="forbid")

    recipe: str = Field(min_length=1, max_length=100)
    domain: str | None = Field(None, min_length=1, max_length=100)
    dataset: str | None = Field(None, min_length=1, max_length=200)
    params: dict[str, Any] = Field(default_factory=dict)
    priority: int = Field(5, ge=0, le=9)
    """9 goes first."""
    queue: Queue | None = None


class Progress(BaseModel):
    """How far a job is; `done` is the share of the whole, 0 to 1."""

    step: str
    done: float | None = None
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    eta_seconds: float | None = None
    at: datetime


class Job(BaseModel):
    """A job as it is now. `device` is where it ran, with the reason when that was not asked for."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    recipe: str
    domain: str | None
    dataset: str | None
    params: dict[str, Any]
    queue: Queue
    priority: int
    state: State
    requested_by: str
    reason: str | None
    retry_of: str | None
    starts: int
    worker: str | None
    device: str | None
    device_reason: str | None
    cancel_requested: bool
    progress: Progress | None
    result: dict[str, Any] | None
    error: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def live(self) -> bool:
        return self.state in LIVE


class Jobs(BaseModel):
    """A page of jobs, newest first; `next` is the `cursor` of the following one."""

    jobs: list[Job]
    next: str | None


class LogLine(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    number: int
    at: datetime
    line: str


class EnqueuedJob(BaseModel):
    job_id: str
