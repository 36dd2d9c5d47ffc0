"""The worker's side of a job: a lease with a fencing token, which every write carries.

A worker that lost its lease (it hung, its machine slept, the database was away for too long) finds
that out at its next write, which changes nothing: `LeaseLost`. The asking side is `govor.jobs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, case, func, insert, select, update
from sqlalchemy.engine import Connection

from govor import jobs
from govor.schemas.jobs import Job, Progress, Queue, State
from govor.tables import job, job_log

STARTS = 3
"""So many workers may die under a job; it is `dead` then."""
LOG_LINES = 10_000  # of a job; what follows is not kept
LINE_CHARS = 2000


class LeaseLost(Exception):
    """Another worker may have the job by now."""


@dataclass(frozen=True)
class Lease:
    """The right to run a job until `seconds` after its last pulse."""

    job: Job
    token: str
    seconds: float


def take(
    connection: Connection, queue: Queue, *, worker: str, seconds: float, only: str | None = None
) -> Lease | None:
    """The first of the jobs that wait in a queue, by priority and age; or `only` this one."""
    first = (
        select(job.c.id)
        .where(job.c.state == "queued", job.c.queue == queue)
        .order_by(job.c.priority.desc(), job.c.created_at, job.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if only is not None:
        first = first.where(job.c.id == only)
    identity = connection.scalar(first)
    if identity is None:
        return None
    now, token = datetime.now(UTC), uuid4().hex
    connection.execute(
        update(job)
        .where(job.c.id == identity)
        .values(
            state="running",
            starts=job.c.starts + 1,
            lease_token=token,
            lease_until=now + timedelta(seconds=seconds),
            worker=worker,
            started_at=now,
            progress=None,
            error=None,
        )
    )
    taken = jobs.read(connection, identity)
    _write(connection, identity, [f"start {taken.starts} on {worker}"])
    return Lease(taken, token, seconds)


def pulse(
    connection: Connection,
    lease: Lease,
    progress: Progress | None = None,
    lines: Sequence[str] = (),
) -> bool:
    """Holds the lease on, tells what is new; whether the job is to be cancelled.

    Raises `LeaseLost`.
    """
    values: dict[str, Any] = {"lease_until": datetime.now(UTC) + timedelta(seconds=lease.seconds)}
    if progress is not None:
        values["progress"] = progress.model_dump(mode="json")
    cancelled = _change(connection, lease, values)
    _write(connection, lease.job.id, lines)
    return cancelled


def note_device(connection: Connection, lease: Lease, device: str, reason: str | None) -> None:
    """Where the job runs, and why not where it was meant to. Raises `LeaseLost`."""
    _change(connection, lease, {"device": device, "device_reason": reason})


def finish(
    connection: Connection,
    lease: Lease,
    state: State,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
    lines: Sequence[str] = (),
) -> None:
    """The end of a job. Raises `LeaseLost`."""
    ended = {"state": state, "result": result, "error": error, "finished_at": datetime.now(UTC)}
    _change(connection, lease, ended | _FREE)
    _write(connection, lease.job.id, [*lines, f"{state}: {error}" if error else state])


def release(connection: Connection, lease: Lease, why: str) -> None:
    """Back into the queue, with the start given back: a worker that stops has not died.

    Raises `LeaseLost`.
    """
    again = {"state": _again(), "starts": job.c.starts - 1, "finished_at": _if_cancelled()}
    _change(connection, lease, again | _FREE)
    _write(connection, lease.job.id, [f"back in the queue: {why}"])


def reap(connection: Connection) -> list[Job]:
    """Takes jobs from workers that fell silent: they are queued again, or dead after `STARTS`."""
    late = (
        select(job.c.id, job.c.worker)
        .where(job.c.state == "running", job.c.lease_until < datetime.now(UTC))
        .with_for_update(skip_locked=True)
    )
    reaped = []
    for identity, worker in connection.execute(late).all():
        silent = f"its worker {worker} fell silent"
        dead = (job.c.starts >= STARTS) & ~job.c.cancel_requested
        connection.execute(
            update(job)
            .where(job.c.id == identity)
            .values(
                {
                    "state": case((dead, "dead"), else_=_again()),
                    "error": case((dead, f"given up after {STARTS} starts: {silent}")),
                    "finished_at": case((dead, datetime.now(UTC)), else_=_if_cancelled()),
                }
                | _FREE
            )
        )
        reaped.append(jobs.read(connection, identity))
        _write(connection, identity, [f"{reaped[-1].state}: {silent}"])
    return reaped


_FREE: dict[str, Any] = {"lease_token": None, "lease_until": None}


def _again() -> ColumnElement[str]:
    return case((job.c.cancel_requested, "cancelled"), else_="queued")


def _if_cancelled() -> ColumnElement[datetime | None]:
    return case((job.c.cancel_requested, datetime.now(UTC)))


def _change(connection: Connection, lease: Lease, values: dict[str, Any]) -> bool:
    """Writes to the job if the lease is still held; whether it is to be cancelled."""
    held = (job.c.id == lease.job.id) & (job.c.lease_token == lease.token)
    changed = update(job).where(held).values(values).returning(job.c.cancel_requested)
    row = connection.execute(changed).one_or_none()
    if row is None:
        raise LeaseLost(lease.job.id)
    return bool(row.cancel_requested)


def _write(connection: Connection, identity: str, lines: Sequence[str]) -> None:
    if not lines:
        return
    last = select(func.coalesce(func.max(job_log.c.number), 0)).where(job_log.c.job_id == identity)
    number, now = connection.scalar(last) or 0, datetime.now(UTC)
    room = max(1, LOG_LINES - number)  # the last line tells how the job ended
    rows = [
        {"job_id": identity, "number": n, "at": now, "line": line[:LINE_CHARS]}
        for n, line in enumerate(list(lines)[-room:], number + 1)
    ]
    connection.execute(insert(job_log), rows)
