"""The doctor in a stack: a real Prometheus that scrapes replicas made here."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client import Gauge

from govor.config import Settings
from govor.metrics import Exporter, Metrics
from govor.routes import ROUTES, SERVICES
from monitoring.prometheus_api import ask
from services.doctor import Finding, stack
from tests.e2e.conftest import HOME, free_port
from tests.monitoring.conftest import prometheus
from tests.monitoring.waiting import until

MODELS = {"stt": "stt-en", "nlu": "nlu", "generator": "generator", "tts": "tts-en"}


@dataclass
class Replica:
    """What one replica of a service tells on its port of metrics."""

    service: str
    metrics: Metrics = field(init=False)
    exporter: Exporter = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.service)
        self.listen(free_port())
        if model := MODELS.get(self.service):
            self.metrics.serves(model, 1, "test")

    def listen(self, port: int) -> None:
        self.exporter = Exporter([self.metrics.registry], "127.0.0.1", port)

    def recover(self) -> None:
        """After whatever a test did to this replica of nlu."""
        self.exporter.close()
        self.listen(self.exporter.port)
        self.metrics.serves("nlu", 1, "test")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.exporter.port}"


@dataclass
class House:
    """Three replicas of nlu, one of every other part."""

    settings: Settings
    nlu: list[Replica]
    nginx: Gauge
    client: httpx.Client

    def seen(self, expr: str) -> None:
        """Waits until Prometheus has scraped it."""
        until(expr, lambda: ask(self.client, expr), 120)

    def look(self, *whats: str) -> list[Finding]:
        return [found for found in stack.look(self.settings) if found.what in whats]

    def tells(self, what: str, *expected: Finding) -> None:
        """Waits until it does: a scrape of a busy machine may be late, and be told as well."""
        told: list[Finding] = []
        end = time.monotonic() + 120
        while told != list(expected) and time.monotonic() < end:
            told = self.look(what)
        assert told == list(expected)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(stack, "PATIENCE_SECONDS", 3.0)
    monkeypatch.setattr(stack, "ADMIN_KEY", tmp_path / "admin.key")
    return Settings(var=tmp_path)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[list[Replica], Gauge, httpx.Client]]:
    """The replicas, what nginx-exporter tells, and a client of the Prometheus that scrapes them."""
    folder = tmp_path_factory.mktemp("prometheus")
    replicas = [Replica(job) for job in (*stack.SCRAPED, "nlu", "nlu")]
    [exporter] = [one for one in replicas if one.service == "nginx-exporter"]
    nginx = Gauge("nginx_up", "As its exporter calls it.", registry=exporter.metrics.registry)
    jobs = [
        {"job_name": job, "static_configs": [{"targets": targets}]}
        for job in stack.SCRAPED
        if (targets := [one.address for one in replicas if one.service == job])
    ]
    scrape = {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config = folder / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": scrape, "scrape_configs": jobs}))
    with prometheus(config, folder) as client:
        yield replicas, nginx, client
    for one in replicas:
        one.exporter.close()


@pytest.fixture
def house(
    running: tuple[list[Replica], Gauge, httpx.Client],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> House:
    """All is well, and Prometheus has seen it."""
    replicas, nginx, client = running
    nlu = [one for one in replicas if one.service == "nlu"]
    for one in nlu:
        one.recover()
    monkeypatch.setattr(stack, "PROMETHEUS", str(client.base_url).rstrip("/"))
    house = House(settings, nlu, nginx, client)
    house.seen(f"sum(up) == {len(replicas)}")
    house.seen('count(model_info{job="nlu", version="1"}) == 3')
    return house


def test_every_replica_is_counted_and_its_version_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "PATIENCE_SECONDS", 120.0)
    found = house.look("prometheus", *stack.SCRAPED)
    assert {finding.state for finding in found} == {"ok"}, found
    [answers] = [one.said for one in found if one.what == "prometheus"]
    assert answers.startswith("answers, and reaches stt 1, nlu 3, generator 1, tts 1, gateway 1")
    assert "redis-exporter 1, nginx-exporter 1, node-exporter 1" in answers
    assert Finding("ok", "nlu", "nlu version 1 on 3 of 3") in found


def test_a_replica_that_serves_another_version_is_named(house: House) -> None:
    house.nlu[2].metrics.serves("nlu", 7, "test")
    house.seen('model_info{version="7"}')
    said = "nlu version 7 on 1 of 3, version 1 on 2 of 3"
    behind = f"{said}; not version 1, which is deployed: {house.nlu[2].address}"
    house.tells("nlu", Finding("fail", "nlu", behind))


def test_a_replica_that_is_behind_for_a_moment_is_no_finding(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "PATIENCE_SECONDS", 120.0)
    last = house.nlu[2].metrics
    last.serves("nlu", 7, "test")
    house.seen('model_info{version="7"}')
    later = threading.Timer(1, last.serves, ("nlu", 1, "test"))
    later.start()
    assert house.look("nlu") == [Finding("ok", "nlu", "nlu version 1 on 3 of 3")]
    later.join()


def test_replicas_that_are_down_or_empty_are_named(house: House) -> None:
    down, empty = house.nlu[0], house.nlu[1]
    down.exporter.close()
    empty.metrics.info.clear()
    house.seen('up{job="nlu"} == 0 and on () (count(model_info{job="nlu"}) == 1)')
    house.tells(
        "nlu",
        Finding("fail", "nlu", f"Prometheus does not reach 1 of 3: {down.address}"),
        Finding("fail", "nlu", f"nlu version 1 on 1 of 2; none on {empty.address}"),
    )


def test_a_part_that_prometheus_does_not_find_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "SCRAPED", (*stack.SCRAPED, "another"))
    told = "Prometheus finds none: docker compose ps --all another"
    house.tells("another", Finding("fail", "another", told))


def test_in_the_trainers_container_nginx_is_what_its_exporter_says(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That container shares no network with nginx, and no name of it is known there."""
    monkeypatch.setenv("GOVOR_SERVICE", "trainer")
    house.nginx.set(1)
    said = "answers nginx-exporter; no network of it is here"
    house.tells("nginx", Finding("ok", "nginx", said))
    house.nginx.set(0)
    house.tells("nginx", Finding("fail", "nginx", "does not answer nginx-exporter"))
    monkeypatch.setenv("GOVOR_SERVICE", "gateway")
    house.nginx.set(1)
    house.seen("nginx_up == 1")
    house.tells("nginx", Finding("fail", "nginx", "does not run, or not on this network"))


def test_without_prometheus_names_are_asked(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "PROMETHEUS", f"http://127.0.0.1:{free_port()}")
    said = {finding.what: finding for finding in stack.look(settings)}
    assert list(said) == ["prometheus", *stack.CONTAINERS, "grafana"]
    assert said["prometheus"].state == "fail"
    assert said["prometheus"].said.startswith("does not answer (ConnectError): one replica")


@pytest.mark.parametrize(
    ("status", "state", "said"),
    [
        (200, "ok", "answers through nginx"),
        (401, "warn", "not looked at: the admin key"),
        (502, "fail", "does not answer nginx (502)"),
    ],
)
def test_grafana_is_asked_through_nginx(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, status: int, state: str, said: str
) -> None:
    stack.ADMIN_KEY.write_text("the-admin-key\n")
    with door(status) as (address, keys):
        monkeypatch.setattr(stack, "DOOR", address)
        [found] = [one for one in stack.look(settings) if one.what == "grafana"]
    assert found.state == state
    assert found.said.startswith(said)
    assert keys == ["the-admin-key"]


@contextmanager
def door(status: int) -> Iterator[tuple[str, list[str | None]]]:
    """An nginx that answers so, and the keys it was shown."""
    keys: list[str | None] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["x-api-key"])
            self.send_response(status if self.path == "/grafana/api/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever).start()
    try:
        yield f"127.0.0.1:{server.server_port}", keys
    finally:
        server.shutdown()
        server.server_close()


def test_no_container_is_left_out() -> None:
    config = yaml.safe_load((HOME / "monitoring/prometheus/prometheus.yml").read_text())
    assert {job["job_name"] for job in config["scrape_configs"]} >= set(stack.SCRAPED)
    containers = yaml.safe_load((HOME / "compose.yaml").read_text())["services"]
    elsewhere = {"postgres", "redis", "grafana", "secrets", "init"}
    assert set(containers) == {*stack.SCRAPED, *stack.CONTAINERS, *elsewhere}
    for name in stack.CONTAINERS:
        assert {"front", "back"} & set(containers[name]["networks"]), name
    assert set(MODELS) == set(ROUTES.values()) == set(SERVICES) - {"gateway"}
