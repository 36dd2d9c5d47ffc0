"""Under gunicorn a service is what it is alone, and its metrics are those of all its workers."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from govor.clients import events
from govor.config import Settings
from tests.core import apps
from tests.core.test_server import HOME, environment, exchange, refused
from tests.core.waiting import PATIENCE_SECONDS
from tests.monitoring.waiting import held_port, until


def create_app() -> FastAPI:
    """What gunicorn loads: the small service, with a gauge that every worker knows itself. It is
    loaded when the file `LOAD_AT` is there, where one is named."""
    while (file := os.environ.get("LOAD_AT")) and not Path(file).exists():
        time.sleep(0.01)
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
    metrics_url: str
    said: int = field(default=0, init=False)
    """How often the verb has answered."""

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
                return httpx.get(self.metrics_url, timeout=PATIENCE_SECONDS).text
            except httpx.TransportError:  # the kernel had given the connection to one that died
                assert self.process.poll() is None

    def requests(self) -> float:
        return sum(self.samples("model_requests_total").values())

    def counts_what_was_said(self) -> bool:
        """Which it does when the verb has ended: after its answer."""
        return self.requests() == self.said

    def ask(self) -> int:
        """One request of the verb over a connection of its own, and one that tells the worker."""
        body = {"text": "a"}
        httpx.post(f"{self.url}/v1/say", json=body, timeout=PATIENCE_SECONDS).raise_for_status()
        self.said += 1
        return int(httpx.get(f"{self.url}/pid", timeout=PATIENCE_SECONDS).text)

    def wait(self) -> None:
        until("gunicorn is ready", self._ready, 120)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        try:
            return httpx.get(f"{self.url}/readyz", timeout=PATIENCE_SECONDS).is_success
        except httpx.TransportError:
            return False


@contextmanager
def started(folder: Path, **more: str) -> Iterator[Gunicorn]:
    with held_port() as port, held_port() as metrics_port:
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
        url, metrics_url = (f"http://127.0.0.1:{one}" for one in (port, metrics_port))
        try:
            yield Gunicorn(process, url, f"{metrics_url}/metrics")
        finally:
            process.terminate()
            process.communicate(timeout=60)


def gunicorn_of(*app: str) -> list[str]:
    return [sys.executable, "-m", "gunicorn", "--config", "python:govor.gunicorn", *app]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    with started(tmp_path_factory.mktemp("var"), WEB_CONCURRENCY="2") as gunicorn:
        gunicorn.wait()
        yield gunicorn


def test_metrics_sum_over_workers_the_dead_ones_too(two: Gunicorn) -> None:
    pids = set[int]()
    while len(pids) < 2 or two.said < 40:
        pids.add(two.ask())
    until("all is counted", two.counts_what_was_said, PATIENCE_SECONDS)
    # Whichever worker answers a scrape, it tells the same sum.
    assert [two.requests() for _ in range(10)] == [two.said] * 10
    assert sum(two.samples("model_request_duration_seconds_count").values()) == two.said
    os.kill(pids.pop(), signal.SIGKILL)
    assert two.requests() == two.said
    while len(pids) < 2:
        # The kernel may give a connection to the dead one.
        with contextlib.suppress(httpx.TransportError):
            pids.add(two.ask())
    until("all is counted", two.counts_what_was_said, PATIENCE_SECONDS)


def test_gauges_are_not_summed(two: Gunicorn) -> None:
    assert two.samples("model_ready") == {("echo", "nlu"): 1}
    assert two.samples("model_info") == {("new", "echo", "nlu", "2"): 1}


def test_each_worker_tells_of_all_their_processes(two: Gunicorn) -> None:
    def both() -> bool:  # one that died a moment ago may not have been replaced yet
        return len(two.samples("process_resident_memory_bytes")) == 2

    until("two workers are told of", both, PATIENCE_SECONDS)
    for _ in range(10):
        used = two.samples("process_resident_memory_bytes")
        assert len(used) == 2
        assert min(used.values()) > 1 << 20
        assert used.keys() == two.samples("process_cpu_seconds_total").keys()
    assert {(str(two.ask()),) for _ in range(10)} <= used.keys()


def test_one_worker_tells_of_its_process(tmp_path: Path) -> None:
    with started(tmp_path) as gunicorn:
        gunicorn.wait()
        pids = {gunicorn.ask() for _ in range(5)}
        assert len(pids) == 1
        until("all is counted", gunicorn.counts_what_was_said, PATIENCE_SECONDS)
        assert gunicorn.samples("process_resident_memory_bytes")[()] > 1 << 20


async def test_what_is_in_flight_is_answered_before_the_end(tmp_path: Path) -> None:
    with started(tmp_path) as gunicorn:
        gunicorn.wait()
        async with httpx.AsyncClient(base_url=gunicorn.url, timeout=PATIENCE_SECONDS) as http:
            body = {"text": "a", "times": 3, "pause": 0.5}
            async with http.stream("POST", "/v1/stream", json=body) as answer:
                got = events(answer)
                assert await anext(got) == ("delta", '{"text":"a"}')
                gunicorn.process.send_signal(signal.SIGTERM)
                assert [name async for name, _ in got] == ["delta", "delta", "done"]
        assert gunicorn.process.wait(PATIENCE_SECONDS) == 0


def test_the_health_check_asks_and_says_why_not(two: Gunicorn) -> None:
    def ask(url: str) -> tuple[int, str]:
        command = [sys.executable, "-S", "-m", "govor.health", url]
        proxied = os.environ | {"http_proxy": "http://nowhere.invalid:1"}  # not for this machine
        done = subprocess.run(command, cwd=HOME, env=proxied, capture_output=True, text=True)
        return done.returncode, done.stderr

    assert ask(f"{two.url}/readyz") == (0, "")
    code, said = ask(f"{two.url}/nothing")
    assert (code, said[:5]) == (1, "404: ")
    with held_port() as port:
        code, said = ask(f"http://127.0.0.1:{port}")
    assert code == 1
    assert "refused" in said


def test_what_is_not_http_is_400_in_the_error_shape(two: Gunicorn) -> None:
    answer = exchange(two.url, b"hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"invalid_http"' in answer


def test_nobody_is_let_in_before_the_models_are_loaded(tmp_path: Path) -> None:
    now = tmp_path / "now"
    with started(tmp_path, GOVOR_LOG_FORMAT="text", LOAD_AT=str(now)) as gunicorn:
        assert gunicorn.process.stderr is not None
        for line in gunicorn.process.stderr:
            if "Booting worker" in line:
                break
        until("the worker takes back gunicorn's own listener", lambda: refused(gunicorn.url), 60)
        assert all(refused(gunicorn.url) for _ in range(20))
        now.touch()
        until("the door is open", lambda: not refused(gunicorn.url), 60)
        assert httpx.get(f"{gunicorn.url}/readyz", timeout=PATIENCE_SECONDS).status_code == 200


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
        env=environment(tmp_path, GOVOR_SERVICE="nlu", **{setting: value}),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode != 0
    assert re.search(f"govor cannot start: {re.escape(said)}", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
