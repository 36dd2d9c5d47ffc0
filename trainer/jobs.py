"""The worker's side of a job: a lease with a fencing token, which every write carries.

A worker that lost its lease (it hung, its machine slept, the database was away for too long) finds
that out at its next write, which changes nothing: `LeaseLost`. The asking side is `govor.jobs`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, case, func, insert, select, update
from sqlalchemy.engine import Connection

from govor import jobs
from govor.schemas.jobs import LIVE, Job, Queue, State
from govor.tables import job, job_log

STARTS = 3
"""So many workers may die under a job; it is `dead` then."""
LOG_LINES = 10_000  # of a job; of what follows only how it went on and ended
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
    _write(connection, identity, last=f"start {taken.starts} on {worker}")
    return Lease(taken, token, seconds)


def pulse(
    connection: Connection,
    lease: Lease,
    told: Mapping[str, Any] = {},
    lines: Sequence[str] = (),
) -> bool:
    """Holds the lease on and writes what is new: columns of the job (`progress`, `device` ...) and
    lines of its log. Whether the job is to be cancelled. Raises `LeaseLost`.
    """
    until = datetime.now(UTC) + timedelta(seconds=lease.seconds)
    cancelled = _change(connection, lease, {"lease_until": until, **told})
    _write(connection, lease.job.id, lines)
    return cancelled


def finish(
    connection: Connection,
    lease: Lease,
    state: State,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """The end of a job. Raises `LeaseLost`."""
    ended = {"state": state, "result": result, "error": error, "finished_at": datetime.now(UTC)}
    _change(connection, lease, ended | _FREE)
    _write(connection, lease.job.id, last=f"{state}: {error}" if error else state)


def release(connection: Connection, lease: Lease, why: str) -> None:
    """Back into the queue, with the start given back: a worker that stops has not died.

    Raises `LeaseLost`.
    """
    again = {"state": _again(), "starts": job.c.starts - 1, "finished_at": _if_cancelled()}
    _change(connection, lease, again | {"returned_at": datetime.now(UTC)} | _FREE)
    _write(connection, lease.job.id, last=f"back in the queue: {why}")


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
                    "returned_at": datetime.now(UTC),
                }
                | _FREE
            )
        )
        reaped.append(jobs.read(connection, identity))
        _write(connection, identity, last=f"{reaped[-1].state}: {silent}")
    return reaped


def over(connection: Connection, identities: Sequence[str]) -> list[str]:
    """Those of them that are jobs, and will not run again."""
    ended = select(job.c.id).where(job.c.id.in_(identities), job.c.state.not_in(LIVE))
    return list(connection.scalars(ended))


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


def _write(
    connection: Connection, identity: str, lines: Sequence[str] = (), last: str | None = None
) -> None:
    """Adds lines to a log, as far as there is room, and its `last` word in any case."""
    if not lines and last is None:
        return
    count = select(func.coalesce(func.max(job_log.c.number), 0)).where(job_log.c.job_id == identity)
    number, now = connection.scalar(count) or 0, datetime.now(UTC)
    new = [*lines[: max(0, LOG_LINES - number)], *([] if last is None else [last])]
    rows = [
        {"job_id": identity, "number": n, "at": now, "line": line[:LINE_CHARS]}
        for n, line in enumerate(new, number + 1)
    ]
    if rows:
        connection.execute(insert(job_log), rows)
