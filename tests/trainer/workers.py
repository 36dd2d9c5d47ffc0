"""Real workers on a database and a broker of their own, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, TypeVar

from sqlalchemy import Engine, select

from govor import jobs
from govor.config import Settings
from govor.database import make_engine, migrate
from govor.schemas.jobs import Job, JobRequest
from govor.tables import job

HOME = Path(__file__).resolve().parents[2]
T = TypeVar("T")


# Only a failure takes so long: a busy machine needs many times what an idle one does.
PATIENCE_SECONDS = 120.0


def eventually(look: Callable[[], T], seconds: float = PATIENCE_SECONDS) -> T:
    """The first truth that `look` sees."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"not within {seconds:g} s"
        time.sleep(0.05)
    return found


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has ended since
            found += map(int, (thread / "children").read_text().split())
    return found


def trains(pid: int) -> bool:
    try:
        return b"\0trainer.child\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Shop:
    """A database, a broker and the workers on them."""

    def __init__(self, folder: Path, url: str | None = None, **settings: object) -> None:
        self.folder = folder
        given = {"var": folder / "var", "database_url": url, "metrics_port": 0, **settings}
        self.settings = Settings.model_validate(given)
        self.workers: list[subprocess.Popen[bytes]] = []
        self.logs: dict[int, Path] = {}
        migrate(self.settings.database)
        self.engine: Engine = make_engine(self.settings.database)

    def start(
        self, *arguments: str, stdin: IO[bytes] | None = None, **settings: object
    ) -> subprocess.Popen[bytes]:
        """A process of the trainer that knows the recipes of the tests; its own `settings` come
        before the shop's."""
        given = self.settings.model_dump(include=self.settings.model_fields_set, exclude_none=True)
        given |= settings
        path = self.folder / f"{len(self.workers)}.log"
        with path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.trainer.recipes", *arguments],
                cwd=HOME,
                stdin=stdin or subprocess.DEVNULL,
                env=os.environ | {f"GOVOR_{name.upper()}": str(v) for name, v in given.items()},
                stderr=log,
                stdout=log,
                start_new_session=True,
            )
        self.workers.append(process)
        self.logs[process.pid] = path
        return process

    def ask(self, recipe: str = "patient", *, ring: bool = True, **more: object) -> str:
        queue, priority = more.pop("queue", None), more.pop("priority", 5)
        request = JobRequest.model_validate(
            {"recipe": recipe, "queue": queue, "priority": priority, "params": more}
        )
        with self.engine.begin() as connection:
            asked = jobs.enqueue(connection, request, requested_by="test")
        if ring:
            jobs.ring(self.settings, asked)
        return asked.id

    def job(self, identity: str) -> Job:
        with self.engine.begin() as connection:
            return jobs.read(connection, identity)

    def log(self, identity: str) -> list[str]:
        with self.engine.begin() as connection:
            return [line.line for line in jobs.log_lines(connection, identity)]

    def cancel(self, identity: str) -> None:
        with self.engine.begin() as connection:
            jobs.cancel(connection, identity)

    def until(self, identity: str, *states: str, seconds: float = PATIENCE_SECONDS) -> Job:
        eventually(lambda: self.job(identity).state in states, seconds)
        return self.job(identity)

    def lease(self, identity: str) -> datetime | None:
        """Until when a job is its worker's: another moment after each pulse."""
        with self.engine.begin() as connection:
            return connection.scalar(select(job.c.lease_until).where(job.c.id == identity))

    def training(self, worker: subprocess.Popen[bytes]) -> int:
        """The process that trains."""
        return eventually(lambda: [pid for pid in children(worker.pid) if trains(pid)])[0]

    def said_by(self, process: subprocess.Popen[bytes]) -> str:
        return self.logs[process.pid].read_text()

    def close(self) -> None:
        """Kills what still runs: an idle worker on the broker of files takes 4 s to stop."""
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        self.engine.dispose()
