"""Workers killed, Redis killed and emptied, messages delivered twice: each job has one effect."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection

from govor import jobs
from govor.jobs import RECIPES
from govor.schemas.jobs import Job
from tests.databases import KINDS, server
from tests.trainer.recipes import RECIPE
from tests.trainer.redis import Redis, redis
from tests.trainer.workers import Shop, children, eventually
from trainer.jobs import STARTS

JOBS, WORKERS, BEATS = 12, 5, 2
# After the first, which is a worker's, in any order.
BLOWS = ["worker"] * 4 + ["redis"] * 2 + ["flush"]
LEDGER = """
CREATE TABLE attempt (job, pid);
CREATE TABLE granted (job, pid);
CREATE TABLE effect (job, pid);
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with server(request.param, tmp_path) as running:
        yield running.url


def test_every_job_is_done_with_one_effect(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "effect", RECIPE)
    seed = random.SystemRandom().randrange(1 << 32)
    dice = random.Random(seed)
    ledger = tmp_path / "ledger.db"
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(LEDGER)
    with redis(tmp_path) as broker:
        shop = Shop(
            tmp_path, url, broker_url=broker.url, trainer_lease_seconds=3, trainer_tick_seconds=1
        )
        try:
            chaos = Chaos(shop, broker, dice)
            chaos.begin(str(ledger))
            for blow in ["worker", *dice.sample(BLOWS, len(BLOWS))]:
                chaos.strike(blow)
                time.sleep(dice.uniform(0.5, 3))
            ended = chaos.end()
        finally:
            shop.close()
    told = f"seed {seed}: {chaos.told}"
    assert {job.state for job in ended} == {"done"}, told
    with closing(sqlite3.connect(ledger)) as connection:
        effects = Counter(job for (job,) in connection.execute("SELECT job FROM effect"))
        tried = connection.execute("SELECT count(*) FROM attempt").fetchone()[0]
    assert effects == Counter(job.id for job in ended), told
    assert JOBS <= tried <= sum(job.starts for job in ended), told
    assert chaos.hit, f"no training was under way at any blow; {told}"


class Chaos:
    """Five workers that come back when they are killed, two beats, one Redis, and what befalls."""

    def __init__(self, shop: Shop, broker: Redis, dice: random.Random) -> None:
        self.shop, self.broker, self.dice = shop, broker, dice
        self.workers = [shop.start("worker", "--name", f"w{n}") for n in range(WORKERS)]
        self.beats = [shop.start("beat") for _ in range(BEATS)]
        self.asked: list[str] = []
        self.told: list[str] = []
        self.hit = 0

    def begin(self, ledger: str) -> None:
        """All jobs, each rung for twice, until a worker trains."""
        for _ in range(JOBS):
            seconds, priority = self.dice.uniform(1, 3), self.dice.randrange(10)
            identity = self.shop.ask("effect", priority=priority, seconds=seconds, ledger=ledger)
            jobs.ring(self.shop.settings, self.shop.job(identity))
            self.asked.append(identity)
        eventually(lambda: any(children(worker.pid) for worker in self.workers))

    def now(self) -> list[Job]:
        with self.shop.engine.begin() as connection:
            return self._all(connection)

    def _all(self, connection: Connection) -> list[Job]:
        return [jobs.read(connection, identity) for identity in self.asked]

    def strike(self, blow: str) -> None:
        if blow == "worker":
            self._kill_a_worker()
            return
        if blow == "redis":
            self.broker.kill()
            time.sleep(self.dice.uniform(0, 2))
            self.broker.start()
        else:
            self.broker.ask("flushall")
        self.told.append(blow)

    def _kill_a_worker(self) -> None:
        """One that trains if there is one; a job that has lost two workers is spared its last."""
        with self._nobody_takes_a_job() as connection:
            running = [job for job in self._all(connection) if job.state == "running"]
            by_pid = {str(job.worker).rpartition(":")[2]: job.starts for job in running}
            able = [w for w in self.workers if by_pid.get(str(w.pid), 0) < STARTS - 1]
            training = [w for w in able if children(w.pid)]
            assert able, "no worker that may die"
            victim = self.dice.choice(training or able)
            self.hit += bool(training)
            victim.kill()
            victim.wait()
        place = self.workers.index(victim)
        self.workers[place] = self.shop.start("worker", "--name", f"w{place}")
        self.told.append(f"w{place}")

    @contextmanager
    def _nobody_takes_a_job(self) -> Iterator[Connection]:
        """A transaction that others wait for: a worker could take a job's last start meanwhile."""
        with self.shop.engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite's are one at a time
                connection.execute(text("LOCK TABLE job IN EXCLUSIVE MODE"))
            yield connection

    def end(self) -> list[Job]:
        """All jobs, when they are over; nobody else may have died."""
        eventually(lambda: not any(job.live for job in self.now()), 300)
        for job in self.now():
            if job.state != "done":
                self.told += [job.id, *self.shop.log(job.id)]
        everyone: list[subprocess.Popen[bytes]] = [*self.workers, *self.beats]
        assert [process.poll() for process in everyone] == [None] * len(everyone)
        return self.now()
