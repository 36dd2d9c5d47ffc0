"""A retrain under load: both replicas of nlu serve the new version, and no request fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import groupby
from pathlib import Path

import httpx
import pytest

from govor import registry
from govor.config import Settings
from govor.database import migrate
from govor.keys import secret
from govor.repository import Repository
from tests.e2e.conftest import HOME, PATIENT
from tests.trainer.contexts import Notes
from trainer.context import Task
from trainer.recipes import intents

pytest.importorskip("sklearn", reason="the trainer's extra is not installed")

pytestmark = pytest.mark.timeout(900)

CLIENTS = 32
WITHIN_SECONDS = 5.0
TEXTS = ("what do the stars say for leo", "hello there", "привет", "кто ты такой")


@contextmanager
def replica(var: Path) -> Iterator[str]:
    """`python -m services nlu` on a port that it takes; its URL."""
    settings = {"GOVOR_VAR": str(var), "GOVOR_PORT": "0", "GOVOR_METRICS_PORT": "0"}
    quiet = {"GOVOR_RATE_LIMIT_PER_MINUTE": "0", "GOVOR_LOG_LEVEL": "WARNING"}
    process = subprocess.Popen(
        [sys.executable, "-m", "services", "nlu"],
        cwd=HOME,
        env=os.environ | PATIENT | settings | quiet,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline().decode()
        assert line.startswith("Govor nlu is ready: "), line
        yield line.split()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()


class Asking:
    """Thirty-two clients, each with one replica, who never stop asking."""

    def __init__(self, urls: list[str], key: str) -> None:
        self.served: dict[str, list[int]] = {url: [] for url in urls}
        self.failed: list[str] = []
        self._headers = {"authorization": f"Bearer {key}"}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Asking:
        urls = list(self.served)
        self._tasks = [asyncio.create_task(self._ask(i, urls[i % 2])) for i in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _ask(self, number: int, url: str) -> None:
        async with httpx.AsyncClient(
            base_url=url, headers=self._headers, timeout=120, trust_env=False
        ) as client:
            while True:
                body = {"text": TEXTS[number % len(TEXTS)]}
                try:
                    answer = await client.post("/v1/understand", json=body)
                    version = int(answer.headers["x-model-version"])
                    assert answer.json()["version"] == version
                except (httpx.HTTPError, KeyError, AssertionError) as error:
                    self.failed.append(repr(error))
                else:
                    self.served[url].append(version)
                # 32 connections, not as many requests as two cores can take beside a training.
                await asyncio.sleep(0.05)

    async def all_serve(self, version: int) -> float:
        """Until each replica answers with this version; the seconds that took."""
        since = time.monotonic()
        async with asyncio.timeout(120):
            while any(answers[-1:] != [version] for answers in self.served.values()):
                await asyncio.sleep(0.02)
        return time.monotonic() - since


async def test_a_retrain_and_a_rollback_fail_no_request(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path / "var", domain="horoscope")
    assert settings.poll_seconds <= 2
    migrate(settings.database)
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    (tmp_path / "job").mkdir()
    task = Task("job-1", "intents", "horoscope")
    with ExitStack() as stack:
        urls = [stack.enter_context(replica(settings.var_folder)) for _ in range(2)]
        key = secret(settings.internal_key_path).decode()
        async with Asking(urls, key) as asking:
            await asking.all_serve(1)
            result = await asyncio.to_thread(
                intents.retrain, task, Notes(tmp_path / "job"), settings
            )
            assert result["deployed"], result["checks"]
            assert await asking.all_serve(2) < WITHIN_SECONDS
            await asyncio.sleep(1)
            given = (repository, settings.database, "nlu", "anna", "tests")
            back = await asyncio.to_thread(registry.rollback, *given)
            assert back.champion == 1
            assert await asking.all_serve(1) < WITHIN_SECONDS
            await asyncio.sleep(1)
            await asking.all_serve(1)
    assert asking.failed == []
    for answers in asking.served.values():
        # Of requests under way at a swap, those that leased the old version may end after others.
        assert set(answers) == {1, 2}
        runs = [version for version, _ in groupby(answers)]
        assert (runs[0], runs[-1]) == (1, 1)
