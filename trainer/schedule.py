"""What happens by itself: schedules that fall due, jobs whose worker died, rings that were lost.

`tick` does it all, from the table alone: after downtime a schedule is caught up once, and two that
tick at once do no harm. It is no Celery task, because a busy worker or a broker that is away would
then keep it from running.
"""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import Engine, Row, delete, func, insert, select, update
from sqlalchemy.engine import Connection

from govor import jobs
from govor.config import Settings
from govor.database import insert_one, make_engine
from govor.errors import GovorError, NotFound, Unprocessable
from govor.schemas.jobs import QUEUES, JobRequest
from govor.tables import run, schedule
from trainer.execution import AWAY
from trainer.jobs import reap

log = logging.getLogger(__name__)


def beat(settings: Settings, stopping: threading.Event) -> None:
    """Ticks until it is to stop."""
    engine = make_engine(settings.database)
    while True:
        try:
            tick(settings, engine)
        except AWAY as error:
            log.warning("nothing is looked after, the database is away: %s", error.args[0])
        except Exception:
            log.exception("a tick failed")
        if stopping.wait(settings.trainer_tick_seconds):
            engine.dispose()
            return


def tick(settings: Settings, engine: Engine, now: datetime | None = None) -> None:
    """Takes jobs from silent workers, enqueues what is due, and rings for all that waits."""
    with engine.begin() as connection:
        for lost in reap(connection):
            log.warning("job %s (%s): its worker fell silent, %s", lost.id, lost.recipe, lost.state)
        for row in connection.execute(select(schedule).where(schedule.c.enabled)).all():
            _fire(connection, row, now or datetime.now(UTC))
    _ring_again(settings, engine)


def due(cron: str, after: datetime, until: datetime) -> datetime | None:
    """The last moment (UTC) after `after` and not after `until` that a cron line names.

    Day of the month and day of the week must both fit. Raises `Unprocessable` for another line.
    """
    from celery.schedules import ParseException, crontab

    try:
        fields = crontab.from_string(cron)
    except (ValueError, ParseException) as error:
        raise Unprocessable(f"{cron!r} is no cron line: {error}", param="cron") from None
    times = [time(h, m) for h in sorted(fields.hour) for m in sorted(fields.minute)]
    for days in range((until.date() - after.date()).days + 1):
        day = until.date() - timedelta(days=days)
        if (
            day.day in fields.day_of_month
            and day.month in fields.month_of_year
            and day.isoweekday() % 7 in fields.day_of_week
        ):
            for moment in (datetime.combine(day, at, UTC) for at in reversed(times)):
                if after < moment <= until:
                    return moment
    return None


def add(connection: Connection, name: str, cron: str, request: JobRequest) -> None:
    """A schedule, or another one under its name; it first falls due after now.

    Raises `Unprocessable` for a cron line that is none.
    """
    now = datetime.now(UTC)
    due(cron, now, now)
    values = {
        "cron": cron,
        "recipe": request.recipe,
        "domain": request.domain,
        "params": request.params,
        "queue": jobs.queue_of(request),
        "priority": request.priority,
        "enabled": True,
        "created_at": now,
    }
    changed = update(schedule).where(schedule.c.name == name).values(values)
    if not connection.execute(changed).rowcount:
        connection.execute(insert(schedule), {"name": name, **values})


def remove(connection: Connection, name: str) -> None:
    """Raises `NotFound` (`schedule_not_found`)."""
    if not connection.execute(delete(schedule).where(schedule.c.name == name)).rowcount:
        raise NotFound(f"there is no schedule {name!r}", code="schedule_not_found")


def _fire(connection: Connection, row: Row[Any], now: datetime) -> None:
    """Enqueues a schedule's job if a moment has passed that has no run yet; earlier ones are gone.

    A job of the schedule that still waits or runs is the one: they do not pile up. What a clock
    that was ahead has written does not count before its time.
    """
    if row.created_at > now:
        log.warning("schedule %s was made by a clock ahead of this one: it begins now", row.name)
        begun = update(schedule).where(schedule.c.name == row.name).values(created_at=now)
        connection.execute(begun)
        return
    runs = select(func.max(run.c.due_at)).where(run.c.schedule == row.name)
    last = connection.scalar(runs.where(run.c.due_at <= now)) or row.created_at
    try:
        moment = due(row.cron, max(last, row.created_at), now)
        if moment is None:
            return
        mark = {"schedule": row.name, "due_at": moment, "job_id": ""}
        if not insert_one(connection, run, mark):
            return
        if (latest := connection.scalar(runs)) is not None and latest > now:
            log.warning("schedule %s: a clock was ahead, it ran for %s", row.name, latest)
        request = JobRequest(
            recipe=row.recipe,
            domain=row.domain,
            params=row.params,
            queue=row.queue,
            priority=row.priority,
        )
        reason = f"schedule {row.name} of {moment:%Y-%m-%d %H:%M}"
        job = jobs.enqueue(
            connection,
            request,
            requested_by="schedule",
            reason=reason,
            idempotency_key=f"schedule {row.name}",
        )
    except GovorError as error:
        log.error("schedule %s: %s", row.name, error)
        return
    mine = (run.c.schedule == row.name) & (run.c.due_at == moment)
    connection.execute(update(run).where(mine).values(job_id=job.id))


def _ring_again(settings: Settings, engine: Engine) -> None:
    """As many rings in each queue as jobs wait there: what Redis lost is made good, and a queue
    that nobody serves does not fill up."""
    for queue in QUEUES:
        with engine.begin() as connection:
            waiting = jobs.waiting(connection, queue)
        if not waiting:
            continue
        try:
            missing = len(waiting) - jobs.unheard(settings, queue)
        except Exception as error:
            log.warning("the doorbell of the trainer is out of order: %s", error)
            return
        if not all(jobs.ring(settings, job) for job in waiting[: max(0, missing)]):
            return  # it went away meanwhile: each further ring could take 3 s
