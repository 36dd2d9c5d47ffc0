"""Under gunicorn a service is what it is alone, and its metrics are those of all its workers."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from govor.config import Settings
from tests.core import apps
from tests.core.test_server import HOME, environment
from tests.e2e.conftest import free_port


def create_app() -> FastAPI:
    """What gunicorn loads: the small service, with a gauge that every worker knows itself."""
    app = apps.create_app(Settings())
    app.state.metrics.watch_ready("echo", lambda: (True, ""))
    app.state.metrics.serves("echo", 1, "old")
    app.state.metrics.serves("echo", 2, "new")

    @app.get("/pid")
    async def pid() -> int:
        return os.getpid()

    return app


@dataclass
class Gunicorn:
    process: subprocess.Popen[str]
    url: str
    metrics_port: int

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of this name, by the values of their labels in alphabetical order."""
        families = list(text_string_to_metric_families(self._page()))
        return {
            tuple(sample.labels[label] for label in sorted(sample.labels)): sample.value
            for family in families
            for sample in family.samples
            if sample.name == name
        }

    def _page(self) -> str:
        while True:
            try:
                url = f"http://127.0.0.1:{self.metrics_port}/metrics"
                with urllib.request.urlopen(url, timeout=10) as page:
                    return str(page.read().decode())
            except ConnectionResetError:  # the kernel had given the connection to one that died
                assert self.process.poll() is None

    def requests(self) -> float:
        return sum(self.samples("model_requests_total").values())

    def ask(self) -> int:
        """One request of the verb over a connection of its own, and one that tells the worker."""
        httpx.post(f"{self.url}/v1/say", json={"text": "a"}).raise_for_status()
        return int(httpx.get(f"{self.url}/pid").text)

    def wait(self, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                httpx.get(f"{self.url}/readyz").raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        raise AssertionError(self.process.communicate(timeout=5)[1])


@contextmanager
def started(folder: Path, **more: str) -> Iterator[Gunicorn]:
    port, metrics_port = free_port(), free_port()
    process = subprocess.Popen(
        gunicorn_of(f"{__name__}:create_app()"),
        cwd=HOME,
        env=environment(
            folder,
            GOVOR_PORT=str(port),
            GOVOR_METRICS_PORT=str(metrics_port),
            GOVOR_SERVICE="nlu",
            TMPDIR=str(folder),
            **more,
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Gunicorn(process, f"http://127.0.0.1:{port}", metrics_port)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def gunicorn_of(*app: str) -> list[str]:
    return [sys.executable, "-m", "gunicorn", "--config", "python:govor.gunicorn", *app]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    with started(tmp_path_factory.mktemp("var"), WEB_CONCURRENCY="2") as gunicorn:
        gunicorn.wait()
        yield gunicorn


def test_metrics_sum_over_workers_the_dead_ones_too(two: Gunicorn) -> None:
    count, pids = 0, set[int]()
    while len(pids) < 2 or count < 40:
        pids.add(two.ask())
        count += 1
    # Whichever worker answers a scrape, it tells the same sum.
    assert [two.requests() for _ in range(10)] == [count] * 10
    assert sum(two.samples("model_request_duration_seconds_count").values()) == count
    os.kill(pids.pop(), signal.SIGKILL)
    assert two.requests() == count
    while len(pids) < 2:
        try:
            pids.add(two.ask())
        except httpx.TransportError:  # the kernel had given the connection to the dead one
            continue
        count += 1
    assert two.requests() == count


def test_gauges_are_not_summed(two: Gunicorn) -> None:
    assert two.samples("model_ready") == {("echo", "nlu"): 1}
    assert two.samples("model_info") == {("new", "echo", "nlu", "2"): 1}


def test_one_worker_tells_of_its_process(tmp_path: Path) -> None:
    with started(tmp_path) as gunicorn:
        gunicorn.wait()
        pids = {gunicorn.ask() for _ in range(5)}
        assert len(pids) == 1
        assert gunicorn.requests() == 5
        assert gunicorn.samples("process_resident_memory_bytes")[()] > 1 << 20


async def test_what_is_in_flight_is_answered_before_the_end(tmp_path: Path) -> None:
    with started(tmp_path) as gunicorn:
        gunicorn.wait()
        async with httpx.AsyncClient(base_url=gunicorn.url) as http:
            asked = asyncio.create_task(http.post("/v1/say", json={"text": "a", "pause": 1}))
            await asyncio.sleep(0.4)
            gunicorn.process.send_signal(signal.SIGTERM)
            assert (await asked).json() == {"text": "a"}
        assert gunicorn.process.wait(10) == 0


def test_the_health_check_asks_and_says_why_not(two: Gunicorn) -> None:
    def ask(url: str) -> tuple[int, str]:
        command = [sys.executable, "-S", "-m", "govor.health", url]
        proxied = os.environ | {"http_proxy": "http://nowhere.invalid:1"}  # not for this machine
        done = subprocess.run(command, cwd=HOME, env=proxied, capture_output=True, text=True)
        return done.returncode, done.stderr

    assert ask(f"{two.url}/readyz") == (0, "")
    code, said = ask(f"{two.url}/nothing")
    assert (code, said[:5]) == (1, "404: ")
    code, said = ask(f"http://127.0.0.1:{free_port()}")
    assert code == 1
    assert "refused" in said


def test_what_is_not_http_is_400_in_the_error_shape(two: Gunicorn) -> None:
    host, _, port = two.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"hello\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"invalid_http"' in answer


def test_nobody_is_let_in_before_the_models_are_loaded(tmp_path: Path) -> None:
    with started(tmp_path, GOVOR_LOG_FORMAT="text") as gunicorn:
        assert gunicorn.process.stderr is not None
        host, _, port = gunicorn.url.removeprefix("http://").partition(":")
        for line in gunicorn.process.stderr:
            if "Booting worker" in line:
                break
        refused = 0
        while True:
            try:
                with socket.create_connection((host, int(port)), 1):
                    break
            except ConnectionRefusedError:
                refused += 1
                time.sleep(0.02)
        assert refused > 5  # the app is imported meanwhile
        assert httpx.get(f"{gunicorn.url}/readyz").status_code == 200


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("GOVOR_LOG_LEVEL", "LOUD", "GOVOR_LOG_LEVEL=LOUD: "),
        ("GOVOR_NLU_MAX_BATCH", "0", "GOVOR_NLU_MAX_BATCH=0: "),
        ("GOVOR_KEYS_FILE", "/nothing", "GOVOR_KEYS_FILE: /nothing cannot be read"),
        ("GOVOR_HOST", "0.0.0.0", "GOVOR_HOST=0.0.0.0 is reached by others and needs a key"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path: Path, setting: str, value: str, said: str) -> None:
    done = subprocess.run(
        gunicorn_of(),
        cwd=HOME,
        env=environment(
            tmp_path,
            GOVOR_PORT=str(free_port()),
            GOVOR_METRICS_PORT=str(free_port()),
            GOVOR_SERVICE="nlu",
            **{setting: value},
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert re.search(f"govor cannot start: {re.escape(said)}", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
