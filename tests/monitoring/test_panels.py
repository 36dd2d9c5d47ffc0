"""Every panel's query, asked of a real Prometheus that scrapes what our processes export.

The figures are made here, by the same calls that services and trainer make; the stack's test asks
the same of running containers (`tests/deploy`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml
from prometheus_client import ProcessCollector
from sqlalchemy import insert

from govor import jobs
from govor.config import Settings
from govor.database import migrate, transaction
from govor.metrics import Exporter, Metrics
from govor.routes import SERVICES
from govor.schemas.jobs import JobRequest, Progress
from govor.tables import evaluation
from monitoring import generated, preview
from monitoring.dashboards import BOARDS
from monitoring.prometheus_api import ask, empty_panels
from monitoring.recording import VERBS
from tests.monitoring.conftest import prometheus
from tests.monitoring.waiting import until
from trainer import exporter
from trainer import jobs as work

STRANGERS = {
    *("overview / Load of the machine A", "overview / Disk that is free A"),
    "overview / Redis memory A",
}
"""What the exporters of others tell."""


def one_turn(services: dict[str, Metrics]) -> None:
    """What a spoken turn leaves behind."""
    for name, metrics in services.items():
        metrics.observe_request(name, "ok", 0.02)
        metrics.observe_route("POST", VERBS[name], "2xx", 0.02)
        if name != "gateway":
            metrics.observe_batch(name, 1, [0.001], 0.01)
    gateway = services["gateway"]
    gateway.turns.labels("support", "api").inc()
    gateway.intents.labels("support", "refund").inc()
    gateway.feedback.labels("1").inc()
    gateway.degraded.labels("tts").inc()
    gateway.observe_turn({"stt": 0.2, "nlu": 0.01, "total": 0.3})


@contextmanager
def house() -> Iterator[Exporter]:
    """Five services in conversation, their figures on a port."""
    services = {name: Metrics(name) for name in SERVICES}
    for name, metrics in services.items():
        metrics.serves(name, 1, "test")
        metrics.watch_ready(name, lambda: (True, ""))
    over = threading.Event()

    def talk() -> None:
        while not over.wait(0.05):
            one_turn(services)

    talking = threading.Thread(target=talk)
    talking.start()
    collectors = [one.registry for one in services.values()]
    exported = Exporter([*collectors, ProcessCollector(registry=None)], "127.0.0.1", 0)
    try:
        yield exported
    finally:
        over.set()
        talking.join()
        exported.close()


def retrained(settings: Settings) -> None:
    """A job that is done, and what its version scored."""
    migrate(settings.database)
    told = Progress(step="done", done=1.0, epoch=4, epochs=4, loss=0.5, at=datetime.now(UTC))
    score = {"model": "nlu", "version": 1, "domain": "support", "dataset_digest": "none"}
    with transaction(settings.database) as connection:
        jobs.enqueue(connection, JobRequest(recipe="intents"), requested_by="a test")
        lease = work.take(connection, "cpu", worker="one", seconds=60)
        assert lease is not None
        work.pulse(connection, lease, {"progress": told.model_dump(mode="json")})
        work.finish(connection, lease, "done", result={})
        for language in (None, "en", "ru"):
            row = {"id": str(language), "at": told.at, "language": language, **score}
            connection.execute(insert(evaluation), row | {"metrics": {"accuracy": 0.9}})


def configuration(folder: Path, **ports: int) -> Path:
    """Ours, with every job on this machine and asked every two seconds."""
    config = yaml.safe_load((generated.FOLDER / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {
        "scrape_interval": "2s",
        "scrape_timeout": "2s",
        "evaluation_interval": "1s",
    }
    config["rule_files"] = [str(generated.FOLDER / "prometheus" / "rules" / "*.yml")]
    config["alerting"] = {}
    config["scrape_configs"] = [
        {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for job, port in ports.items()
    ]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_no_panel_is_empty(tmp_path: Path) -> None:
    settings = Settings(var=tmp_path / "var", metrics_port=0)
    retrained(settings)
    beat = exporter.start(settings)
    try:
        with house() as services:
            config = configuration(tmp_path, gateway=services.port, beat=beat.port)
            with prometheus(config, tmp_path) as client:
                url = str(client.base_url)
                until("data", lambda: set(empty_panels(url)) == STRANGERS, 150)
                query = 'champion_quality{metric="accuracy",language="all"}'
                (trained,) = until("a score", lambda: ask(client, query), 60)
                assert trained["value"][1] == "0.9"
                made = preview.plot(url, tmp_path / "pictures", 60)
    finally:
        beat.close()
    assert [path.stem for path in made] == [board.name for board in BOARDS]
    assert all(path.stat().st_size > 10_000 for path in made)
