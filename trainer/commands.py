"""What the trainer's command line asks of the table of jobs, and shows of it."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import select

from govor import jobs
from govor.config import ConfigurationError, Settings
from govor.database import make_engine, transaction
from govor.domains import pack_names
from govor.errors import Conflict, NotFound
from govor.metrics import TrainerMetrics
from govor.schemas.jobs import Job, JobRequest
from govor.tables import schedule as schedules
from trainer import schedule
from trainer.execution import Worker

FOLLOW_SECONDS = 0.5


def train(settings: Settings, asked: argparse.Namespace) -> int:
    """Enqueues a job and follows it; 0 when it is done. One that runs here ends with Ctrl-C."""
    given = _assignments(asked.settings)
    request = JobRequest(
        recipe=asked.recipe,
        domain=_domain(settings, given),
        dataset=given.pop("dataset", None),
        queue=asked.queue,
        priority=asked.priority,
        params=given,
    )
    with transaction(settings.database) as connection:
        job = jobs.enqueue(connection, request, requested_by="command line")
    say(f"job {job.id}")
    if not asked.now:
        jobs.ring(settings, job)
        return 0 if asked.detach else _follow(settings, job.id)
    here = threading.Thread(target=_run_here, args=(settings, job), daemon=True)
    try:
        here.start()
        status = _follow(settings, job.id)
        here.join()  # which clears up after a job that is over
        return status
    except KeyboardInterrupt:
        with suppress(Conflict), transaction(settings.database) as connection:
            jobs.cancel(connection, job.id)
        here.join()
        raise


def listing(settings: Settings, asked: argparse.Namespace) -> int:
    with transaction(settings.database) as connection:
        found, _ = jobs.listing(connection, state=asked.state, limit=asked.limit)
    for job in found:
        say(_line(job))
    return 0


def cancel(settings: Settings, asked: argparse.Namespace) -> int:
    with transaction(settings.database) as connection:
        job = jobs.cancel(connection, asked.id)
    say(job.state if job.state == "cancelled" else "its worker is told")
    return 0


def follow(settings: Settings, asked: argparse.Namespace) -> int:
    with transaction(settings.database) as connection:
        jobs.read(connection, asked.id)
    return _follow(settings, asked.id)


def plan(settings: Settings, asked: argparse.Namespace) -> int:
    """Lists the schedules, adds or replaces one, or removes it."""
    with transaction(settings.database) as connection:
        if asked.remove:
            schedule.remove(connection, asked.remove)
        elif asked.name is not None:
            if asked.recipe is None:
                raise ConfigurationError('a schedule is: NAME "CRON LINE" RECIPE key=value ...')
            given = _assignments(asked.settings)
            domain = _domain(settings, given)
            request = JobRequest(recipe=asked.recipe, domain=domain, params=given)
            schedule.add(connection, asked.name, asked.cron, request)
        rows = connection.execute(select(schedules).order_by(schedules.c.name)).all()
    for row in rows:
        say(f"{row.name}  {row.cron} UTC  {row.recipe} {row.domain} {json.dumps(row.params)}")
    return 0


def _assignments(words: Sequence[str]) -> dict[str, object]:
    """`key=value` words; a value is read as JSON where it is some."""
    given: dict[str, object] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigurationError(f"{word}: write key=value")
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    return given


def _domain(settings: Settings, given: dict[str, object]) -> str:
    """The pack that is asked for, or the setting's, out of `given`. Raises `NotFound`."""
    domain = str(given.pop("domain", settings.domain))
    if domain not in pack_names(settings.domains_folder):
        raise NotFound(f"there is no domain {domain!r}", code="domain_not_found", param="domain")
    return domain


def _run_here(settings: Settings, job: Job) -> None:
    name = f"command line@{socket.gethostname()}:{os.getpid()}"
    here = Worker(name, settings, threading.Event(), TrainerMetrics())
    here.run_next(job.queue, only=job.id)


def _follow(settings: Settings, identity: str) -> int:
    """Prints a job's log until it is over."""
    engine = make_engine(settings.database)
    seen, shown = 0, ""
    while True:
        with engine.begin() as connection:
            job = jobs.read(connection, identity)
            lines = jobs.log_lines(connection, identity, seen)
        for line in lines:
            say(f"{line.at:%H:%M:%S} {line.line}")
            seen = line.number
        if job.live:
            shown = _show_progress(job, shown)
            time.sleep(FOLLOW_SECONDS)
        elif not lines:
            engine.dispose()
            if job.result is not None:
                say(json.dumps(job.result, indent=1, ensure_ascii=False))
            return 0 if job.state == "done" else 1


def _show_progress(job: Job, shown: str) -> str:
    progress = _progress(job)
    if progress != shown and job.progress is not None:
        say(f"{job.progress.at:%H:%M:%S} {progress}")
    return progress


def _progress(job: Job) -> str:
    if (now := job.progress) is None:
        return ""
    parts = [now.step]
    if now.done is not None:
        parts.append(f"{now.done:.0%}")
    if now.epoch is not None:
        parts.append(f"epoch {now.epoch}" + (f" of {now.epochs}" if now.epochs else ""))
    if now.loss is not None:
        parts.append(f"loss {now.loss:.4g}")
    if now.eta_seconds is not None:
        parts.append(f"{now.eta_seconds:.0f} s to go")
    return ", ".join(parts)


def _line(job: Job) -> str:
    what = f"{job.id}  {job.created_at:%Y-%m-%d %H:%M:%S}  {job.state:9}  {job.recipe}"
    how = job.error or (_progress(job) if job.live else None)
    return "  ".join(filter(None, (what, job.domain, f"by {job.requested_by}", how)))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
