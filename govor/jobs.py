"""Jobs for the trainer: rows of the table `job`, and the doorbell that wakes a worker up.

The table is the truth. Celery and its broker only say that a job waits in a queue; a ring that is
lost is repaired by the trainer's tick (`trainer.schedule`), one too many finds nothing to do.
All functions on a connection are synchronous and run in its transaction.
"""

from __future__ import annotations

import fcntl
import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import and_, case, or_, select, update
from sqlalchemy.engine import Connection

from govor.config import Settings
from govor.database import insert_one
from govor.errors import Conflict, NotFound, Unprocessable
from govor.schemas.jobs import LIVE, Job, JobRequest, LogLine, Queue, State
from govor.tables import job, job_log

log = logging.getLogger(__name__)

RUN_NEXT = "trainer.run_next"
"""The Celery task that takes the next job of a queue: its one argument."""
LINES = 1000  # of a log, at most, in one answer

# With a broker that is not there a ring takes 0.02 s, with one that hangs 3 s.
_BRISK = {"socket_timeout": 1, "socket_connect_timeout": 1, "max_retries": 0}


class IntentsParams(BaseModel):
    """What may be set of a training of `intents`: the recipe's own, within limits."""

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(1, ge=0, lt=1 << 31)
    samples: int = Field(60, ge=1, le=10_000)
    trunk_weight: float = Field(0.7, gt=0, le=100)
    c: float = Field(0.5, gt=0, le=1000)
    folds: int = Field(4, ge=2, le=20)
    false_alarms: float = Field(0.05, gt=0, lt=1)


@dataclass(frozen=True)
class Recipe:
    """What may be known of a recipe without the trainer: its queue and its parameters."""

    queue: Queue
    params: type[BaseModel]


RECIPES = {"intents": Recipe("cpu", IntentsParams)}
"""The recipes that may be asked for; a test compares them with the trainer's."""


def enqueue(
    connection: Connection,
    request: JobRequest,
    *,
    requested_by: str,
    reason: str | None = None,
    idempotency_key: str | None = None,
    retry_of: str | None = None,
) -> Job:
    """A new job; under an `idempotency_key` that a live one has, that one.

    Raises `Unprocessable` for a recipe that there is not, and for its parameters.
    """
    queue = queue_of(request)
    row = {
        **request.model_dump(),
        "id": uuid4().hex,
        "queue": queue,
        "state": "queued",
        "idempotency_key": idempotency_key,
        "requested_by": requested_by,
        "reason": reason,
        "retry_of": retry_of,
        "starts": 0,
        "cancel_requested": False,
        "created_at": datetime.now(UTC),
    }
    alike = select(job.c.id).where(job.c.idempotency_key == idempotency_key, job.c.state.in_(LIVE))
    while True:
        if insert_one(connection, job, row):
            return read(connection, str(row["id"]))
        if identity := connection.scalar(alike):
            return read(connection, identity)


def queue_of(request: JobRequest) -> Queue:
    """Where a job would wait. Raises `Unprocessable` for a recipe that there is not, and for
    parameters that it does not take."""
    recipe = RECIPES.get(request.recipe)
    if recipe is None:
        known = ", ".join(RECIPES)
        raise Unprocessable(
            f"there is no recipe {request.recipe!r}, but {known}",
            code="recipe_not_found",
            param="recipe",
        )
    try:
        recipe.params.model_validate(request.params)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["params", *map(str, first["loc"])])
        raise Unprocessable(f"{field}: {first['msg']}", param=field[:100]) from None
    return request.queue or recipe.queue


def read(connection: Connection, identity: str) -> Job:
    """Raises `NotFound` (`job_not_found`)."""
    row = connection.execute(select(job).where(job.c.id == identity)).one_or_none()
    if row is None:
        raise NotFound(f"there is no job {identity[:100]!r}", code="job_not_found")
    return Job.model_validate(row)


def listing(
    connection: Connection,
    *,
    state: State | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[list[Job], str | None]:
    """A page of jobs, newest first, and the cursor of the next page: the id of its last job."""
    wanted = select(job).order_by(job.c.created_at.desc(), job.c.id.desc()).limit(limit + 1)
    if state is not None:
        wanted = wanted.where(job.c.state == state)
    if cursor is not None:
        last = read(connection, cursor)
        earlier = and_(job.c.created_at == last.created_at, job.c.id < last.id)
        wanted = wanted.where(or_(job.c.created_at < last.created_at, earlier))
    found = [Job.model_validate(row) for row in connection.execute(wanted)]
    return found[:limit], found[limit - 1].id if len(found) > limit else None


def waiting(connection: Connection, queue: Queue) -> list[Job]:
    """The jobs of a queue that no worker has taken."""
    queued = select(job).where(job.c.state == "queued", job.c.queue == queue)
    return [Job.model_validate(row) for row in connection.execute(queued)]


def cancel(connection: Connection, identity: str) -> Job:
    """A queued job is cancelled; a running one is told to its worker, which looks every second.

    Raises `NotFound`, and `Conflict` (`job_finished`).
    """
    waits = job.c.state == "queued"
    # One statement: a worker may take the job or give it back meanwhile.
    asked_for = (
        update(job)
        .where(job.c.id == identity, job.c.state.in_(LIVE))
        .values(
            state=case((waits, "cancelled"), else_=job.c.state),
            finished_at=case((waits, datetime.now(UTC))),
            cancel_requested=~waits,
        )
    )
    if connection.execute(asked_for).rowcount:
        return read(connection, identity)
    found = read(connection, identity)
    raise Conflict(f"the job is over: {found.state}", code="job_finished")


def retry(connection: Connection, identity: str, requested_by: str) -> Job:
    """The same job once more, as a new one; asked for twice, one.

    Raises `NotFound`, and `Conflict` (`job_not_retryable`) for one that runs or has succeeded.
    """
    old = read(connection, identity)
    if old.state not in ("failed", "cancelled", "dead"):
        raise Conflict(f"the job is {old.state}", code="job_not_retryable")
    return enqueue(
        connection,
        JobRequest.model_validate(old.model_dump(include=set(JobRequest.model_fields))),
        requested_by=requested_by,
        reason=f"retry of {old.id}",
        idempotency_key=f"retry {old.id}",
        retry_of=old.id,
    )


def log_lines(connection: Connection, identity: str, after: int = 0) -> list[LogLine]:
    """The lines that follow number `after`, at most `LINES`."""
    rows = connection.execute(
        select(job_log.c.number, job_log.c.at, job_log.c.line)
        .where(job_log.c.job_id == identity, job_log.c.number > after)
        .order_by(job_log.c.number)
        .limit(LINES)
    )
    return [LogLine.model_validate(row) for row in rows]


def ring(settings: Settings, queued: Job) -> bool:
    """Tells the workers of a job's queue that one waits; whether the broker took it. Takes some 3 s
    at most, never raises."""
    once_more = {"max_retries": 1, "interval_start": 0}  # the broker was restarted since
    try:
        bell = _doorbell(settings.broker_url, settings.var_folder / "broker")
        bell.send_task(
            RUN_NEXT, (queued.queue,), queue=queued.queue, retry=True, retry_policy=once_more
        )
    except Exception as error:
        log.warning("the doorbell of the trainer is out of order, its tick will see: %s", error)
        return False
    return True


def unheard(settings: Settings, queue: Queue) -> int:
    """Rings of a queue that no worker has heard yet. Raises what its broker's client raises."""
    bell = _doorbell(settings.broker_url, settings.var_folder / "broker")
    with bell.connection_for_write() as connection:
        return int(connection.default_channel.queue_declare(queue).message_count)


def broker(url: str | None, folder: Path) -> tuple[str, dict[str, Any]]:
    """Celery's URL and options of the broker: Redis, or files in a folder that both sides see."""
    if url is not None:
        return url, {
            # A message is delivered again after a day: leases do it in a minute, and fenced.
            "visibility_timeout": 86400,
            "socket_timeout": 30,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 10,
        }
    for part in ("messages", "control"):
        (folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
    for table in (folder / "control").glob("*.exchange"):
        _mend(table)
    return "filesystem://localhost", {
        "data_folder_in": folder / "messages",
        "data_folder_out": folder / "messages",
        "control_folder": folder / "control",
    }


def _mend(table: Path) -> None:
    """Empties a list of queues that a power cut or a kill left half written: a worker that reads it
    dies, at each start. Under kombu's own lock, so that one who writes meanwhile loses nothing."""
    with table.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            json.loads(file.read())
        except ValueError:
            log.warning("%s cannot be read, it begins anew", table)
            file.truncate(0)
            file.seek(0)
            file.write(b"[]")


@cache
def _doorbell(url: str | None, folder: Path) -> Any:
    from celery import Celery

    address, options = broker(url, folder)
    bell = Celery("doorbell", broker=address, set_as_current=False)
    bell.conf.task_ignore_result = True
    bell.conf.broker_transport_options = options | _BRISK
    return bell
