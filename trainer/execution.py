"""One job, run: a process that trains, attended until it ends or has to.

The training is a process of its own, so that a cancel, a time limit or the kernel for want of
memory ends it and nothing else. While it runs, each second's pulse holds the lease on, writes
progress and log, and tells whether to cancel. A database that is away does not end it: only
`Context.commit` and the last word wait for one.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.engine import Connection
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from govor.config import Settings
from govor.database import make_engine
from govor.jobs import ring
from govor.metrics import TrainerMetrics
from govor.schemas.jobs import Job, Progress, Queue, State
from trainer import jobs
from trainer.context import Task
from trainer.jobs import Lease, LeaseLost
from trainer.process import Child
from trainer.recipes import ENTRIES, Entry

log = logging.getLogger(__name__)

AWAY = (OperationalError, InterfaceError, PoolTimeout)
"""What SQLAlchemy raises for a database that is not there."""

PULSE_SECONDS = 1.0
LEAVE_SECONDS = 5.0  # for a process that has said its last word, to end
EFFECT_SECONDS = 30.0  # for an effect that may begin: no cancel and no limit leaves half of it


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `queued`: to be taken up again, for the reason in `error`."""

    state: State
    result: dict[str, Any] | None = None
    error: str | None = None


@dataclass(frozen=True)
class Worker:
    """Who runs jobs. `stopping` ends the attempt under way: its job goes back into the queue."""

    name: str
    settings: Settings
    stopping: threading.Event
    metrics: TrainerMetrics

    def run_next(self, queue: Queue, only: str | None = None) -> Job | None:
        """Takes the next job of a queue and runs it to its end; None when none waits."""
        engine = make_engine(self.settings.database)
        seconds = self.settings.trainer_lease_seconds
        try:
            self._clear(engine)
            with engine.begin() as connection:
                lease = jobs.take(connection, queue, worker=self.name, seconds=seconds, only=only)
            if lease is None:
                return None
            _Attempt(self, engine, lease).run()
            return lease.job
        finally:
            engine.dispose()

    def _clear(self, engine: Engine) -> None:
        """Removes what is here of jobs that ended elsewhere: under a worker that died, or while
        they waited to be taken up again."""
        with contextlib.suppress(FileNotFoundError):
            left = [path.name for path in (self.settings.var_folder / "runs").iterdir()]
            with engine.begin() as connection:
                over = jobs.over(connection, left)
            for identity in over:
                shutil.rmtree(self.settings.var_folder / "runs" / identity, ignore_errors=True)


class _Attempt:
    """One start of a job, from the lease to its end."""

    def __init__(self, worker: Worker, engine: Engine, lease: Lease) -> None:
        self._worker = worker
        self._engine = engine
        self._lease = lease
        self._job = lease.job
        self._began = time.monotonic()
        self._limit = worker.settings.trainer_time_limit_seconds
        self._outcome: Outcome | None = None
        self._leave_at = float("inf")
        self._committing = False
        self._effect_until = 0.0
        self._news: dict[str, Any] = {}
        self._told: dict[str, Any] = {}
        self._lines: list[str] = []

    def run(self) -> None:
        job, metrics = self._job, self._worker.metrics
        log.info("job %s (%s): start %d", job.id, job.recipe, job.starts)
        metrics.starts.labels(job.recipe).inc()
        folder = (self._worker.settings.var_folder / "runs" / job.id).absolute()
        try:
            child = Child(folder)
            try:
                child.send(self._order() | {"folder": str(folder)})
                self._attend(child)
            finally:
                status, rest = child.kill()
            self._lines += rest
            outcome = self._outcome or _fate(status)
            if not self._settle(outcome):
                return  # another start goes on from what lies in its folder
        except LeaseLost:
            log.warning("job %s is another worker's by now", job.id)
            return
        if outcome.state == "queued":
            ring(self._worker.settings, job)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        seconds = time.monotonic() - self._began
        metrics.duration.labels(job.recipe, outcome.state).observe(seconds)
        log.info("job %s (%s): %s after %.1f s", job.id, job.recipe, outcome.state, seconds)

    def _order(self) -> dict[str, Any]:
        job = self._job
        task = asdict(
            Task(
                id=job.id,
                recipe=job.recipe,
                domain=job.domain,
                dataset=job.dataset,
                params=job.params,
                requested_by=job.requested_by,
            )
        )
        # One that only a newer trainer has: the process will say so.
        entry = ENTRIES.get(job.recipe, Entry(job.recipe))
        return {"entry": asdict(entry), "task": task, "queue": job.queue}

    def _attend(self, child: Child) -> None:
        """Until the process has left, or has had its time to."""
        pulse_seconds = min(PULSE_SECONDS, self._lease.seconds / 6)
        pulse_at = 0.0
        while not child.ended and time.monotonic() < self._leave_at:
            for message in child.hear(pulse_at - time.monotonic()):
                self._note(message)
            if time.monotonic() >= pulse_at or self._committing:
                self._pulse(child)
                pulse_at = time.monotonic() + pulse_seconds
            if self._worker.stopping.is_set():
                self._end(Outcome("queued", error="its worker stops"))
            elif time.monotonic() >= max(self._began + self._limit, self._effect_until):
                limit = f"{self._limit:g} s (GOVOR_TRAINER_TIME_LIMIT_SECONDS)"
                self._end(Outcome("failed", error=f"the training took longer than {limit}"))

    def _note(self, message: dict[str, Any]) -> None:
        match message:
            case {"log": line}:
                self._lines += str(line).splitlines() or [""]
                del self._lines[jobs.LOG_LINES :]  # all that a log holds: the database may be away
            case {"progress": told}:
                self._news["progress"] = self._reckoned(told)
            case {"device": device, "reason": reason}:
                self._news |= {"device": device, "device_reason": reason}
            case {"commit": _}:
                self._committing = True
            case {"result": result}:
                self._end(Outcome("done", result=result), LEAVE_SECONDS)
            case {"error": error}:
                self._end(Outcome("failed", error=error), LEAVE_SECONDS)

    def _reckoned(self, told: dict[str, Any]) -> dict[str, Any]:
        """Progress as it is stored: with the time, and the time that is left. What a step does not
        tell stays as it was: a training that is over keeps its last loss."""
        told = self._told | {name: value for name, value in told.items() if value is not None}
        done, eta = told.get("done"), None
        if done is not None:
            done = min(max(done, 0.0), 1.0)
            eta = (time.monotonic() - self._began) * (1 - done) / done if done else None
        self._told = told | {"done": done, "eta_seconds": eta, "at": datetime.now(UTC)}
        return Progress.model_validate(self._told).model_dump(mode="json")

    def _end(self, outcome: Outcome, seconds: float = 0.0) -> None:
        """The first outcome counts; the process may live on for `seconds`."""
        if self._outcome is None:
            self._outcome = outcome
            self._leave_at = time.monotonic() + seconds

    def _pulse(self, child: Child) -> None:
        """Tells the database, and the process whether it may commit. Raises `LeaseLost`."""
        try:
            with self._engine.begin() as connection:
                cancelled = jobs.pulse(connection, self._lease, self._news, self._lines)
        except AWAY as error:
            log.warning("job %s goes on without the database: %s", self._job.id, error.args[0])
            return
        self._news, self._lines = {}, []
        if self._committing:
            self._committing = False
            child.send({"refused": "the job is cancelled" if cancelled else None})
            self._effect_until = 0.0 if cancelled else time.monotonic() + EFFECT_SECONDS
        if cancelled and time.monotonic() >= self._effect_until:
            self._end(Outcome("cancelled"))

    def _settle(self, outcome: Outcome) -> bool:
        """Writes the end down, as soon as there is a database; whether it did before this worker
        had to stop. Raises `LeaseLost`."""
        while True:
            try:
                with self._engine.begin() as connection:
                    self._write(connection, outcome)
                return True
            except AWAY as error:
                log.warning("job %s waits for the database: %s", self._job.id, error.args[0])
            if self._worker.stopping.wait(1.0):
                log.error("job %s: %s, untold", self._job.id, outcome.state)
                return False

    def _write(self, connection: Connection, outcome: Outcome) -> None:
        jobs.pulse(connection, self._lease, self._news, self._lines)
        if outcome.state == "queued":
            jobs.release(connection, self._lease, outcome.error or "")
        else:
            jobs.finish(
                connection, self._lease, outcome.state, result=outcome.result, error=outcome.error
            )


def _fate(status: int) -> Outcome:
    """What became of a process that ended without a word."""
    if status >= 0:
        return Outcome("failed", error=f"the training ended with status {status} and no result")
    name = signal.Signals(-status).name
    why = ": most often the memory ran out" if name == "SIGKILL" else ""
    return Outcome("failed", error=f"the training was ended by {name}{why}")
