"""Metrics of jobs, training and quality, from both databases."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import insert, update

from govor import jobs
from govor.config import Settings
from govor.database import migrate, transaction
from govor.repository import Repository, deploy
from govor.schemas.jobs import JobRequest, Progress
from govor.tables import evaluation, job, model_version
from tests.databases import KINDS, Server, server
from trainer import exporter
from trainer import jobs as work

NOW = datetime.now(UTC)


@pytest.fixture(params=KINDS, scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    with server(request.param, tmp_path_factory.mktemp("database")) as running:
        yield running


@pytest.fixture
def settings(running: Server, tmp_path: Path) -> Settings:
    url = running.fresh()
    migrate(url)
    return Settings(var=tmp_path, database_url=url, metrics_port=0)


@pytest.fixture
def registry(settings: Settings) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(exporter.Jobs(settings))
    return made


def enqueue(settings: Settings) -> None:
    with transaction(settings.database) as connection:
        jobs.enqueue(connection, JobRequest(recipe="intents"), requested_by="a test")


def evaluated(
    settings: Settings, version: int, accuracy: float, times: int = 1, **changed: Any
) -> None:
    row = {
        "at": NOW,
        "model": "nlu",
        "version": version,
        "domain": "support",
        "language": None,
        "dataset_digest": "none",
        "metrics": {"accuracy": accuracy, "rows": 100},
    }
    with transaction(settings.database) as connection:
        rows = [row | changed | {"id": uuid4().hex} for _ in range(times)]
        connection.execute(insert(evaluation), rows)


def test_before_the_first_job_all_is_zero(registry: CollectorRegistry) -> None:
    value = registry.get_sample_value
    assert value("jobs_exporter_up") == 1
    assert value("jobs", {"recipe": "intents", "queue": "cpu", "state": "failed"}) == 0
    assert value("jobs_finished_total", {"recipe": "intents", "state": "failed"}) == 0
    assert value("jobs_oldest_queued_seconds", {"queue": "cpu"}) == 0
    assert value("jobs_lease_expired", {"recipe": "intents"}) == 0
    assert value("training_silent_seconds", {"recipe": "intents"}) == 0
    assert value("training_epoch", {"recipe": "intents"}) is None


def test_jobs_are_told_as_they_are(settings: Settings, registry: CollectorRegistry) -> None:
    enqueue(settings)
    enqueue(settings)
    told = Progress(step="train", done=0.5, epoch=2, epochs=4, loss=0.25, at=datetime.now(UTC))
    with transaction(settings.database) as connection:
        lease = work.take(connection, "cpu", worker="one", seconds=-5)
        assert lease is not None
        work.pulse(connection, lease, {"progress": told.model_dump(mode="json")})
    value = registry.get_sample_value
    assert value("jobs", {"recipe": "intents", "queue": "cpu", "state": "queued"}) == 1
    assert value("jobs", {"recipe": "intents", "queue": "cpu", "state": "running"}) == 1
    assert 0 < (value("jobs_oldest_queued_seconds", {"queue": "cpu"}) or 0) < 60
    recipe = {"recipe": "intents"}
    assert value("jobs_lease_expired", recipe) == 1
    assert 0 < (value("training_silent_seconds", recipe) or 0) < 60
    assert value("training_epoch", recipe) == 2
    assert value("training_loss", recipe) == 0.25
    with transaction(settings.database) as connection:
        work.finish(connection, lease, "failed", error="a test")
    assert value("jobs_finished_total", {**recipe, "state": "failed"}) == 1
    assert value("jobs_lease_expired", recipe) == 0
    assert 0 < (value("job_last_duration_seconds", {**recipe, "state": "failed"}) or 0) < 60
    assert value("training_progress_ratio", recipe) == 0.5


def test_a_job_that_came_back_waits_since_then(
    settings: Settings, registry: CollectorRegistry
) -> None:
    enqueue(settings)
    with transaction(settings.database) as connection:
        connection.execute(update(job).values(created_at=NOW - timedelta(hours=6)))

    def waited() -> float:
        return registry.get_sample_value("jobs_oldest_queued_seconds", {"queue": "cpu"}) or 0

    assert waited() > 20_000

    def take(seconds: float) -> work.Lease:
        with transaction(settings.database) as connection:
            lease = work.take(connection, "cpu", worker="one", seconds=seconds)
        assert lease is not None
        assert waited() == 0
        return lease

    take(-5)
    with transaction(settings.database) as connection:
        work.reap(connection)
    assert 0 < waited() < 60
    lease = take(60)
    with transaction(settings.database) as connection:
        work.release(connection, lease, "its worker stops")
    assert 0 < waited() < 60


def test_quality_is_that_of_the_last_evaluation(
    settings: Settings, registry: CollectorRegistry
) -> None:
    evaluated(settings, 1, 0.7, at=NOW - timedelta(days=1))
    evaluated(settings, 1, 0.9)
    evaluated(settings, 1, 0.8, language="ru")
    for version in range(2, 20):
        evaluated(settings, version, 0.6)
    value = registry.get_sample_value
    support = {"model": "nlu", "domain": "support", "metric": "accuracy"}
    # Version 1 is the bundled one: it serves, and is told of however many were trained since.
    assert value("champion_quality", {**support, "language": "all"}) == 0.9
    assert value("champion_quality", {**support, "language": "ru"}) == 0.8
    assert value("model_quality", {**support, "language": "all", "version": "19"}) == 0.6
    assert value("model_quality", {**support, "language": "all", "version": "9"}) is None


def test_a_retrain_of_one_pack_leaves_the_quality_of_the_others(
    settings: Settings, registry: CollectorRegistry, tmp_path: Path
) -> None:
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    for version, domain, state in (
        (2, "support", "published"),
        (3, "support", "rejected"),
        (4, "horoscope", "published"),
    ):
        published(settings, repository, tmp_path / "empty", version, domain, state)
        evaluated(settings, version, version / 10, domain=domain)
    deploy(repository, "nlu", {"champion": 4}, 0)

    def accuracy(domain: str) -> float | None:
        labels = {"model": "nlu", "domain": domain, "language": "all", "metric": "accuracy"}
        return registry.get_sample_value("champion_quality", labels)

    assert (accuracy("horoscope"), accuracy("support")) == (0.4, 0.2)
    evaluated(settings, 4, 0.3, domain="support")  # the champion of the next one's gate
    assert accuracy("support") == 0.3
    evaluated(settings, 5, 0.1, times=500, domain="parking", at=NOW + timedelta(seconds=1))
    assert accuracy("support") == 0.3, "however long ago that was"


def test_a_pack_that_was_removed_has_no_quality(
    settings: Settings, registry: CollectorRegistry, tmp_path: Path
) -> None:
    for domain in ("support", "parking"):
        evaluated(settings, 1, 0.4, domain=domain)
    evaluated(settings, 1, 0.3, domain=None)

    def told(registry: CollectorRegistry) -> dict[str, float]:
        return {
            sample.labels["domain"]: sample.value
            for family in registry.collect()
            for sample in family.samples
            if sample.name == "champion_quality" and sample.labels["metric"] == "accuracy"
        }

    assert told(registry) == {"support": 0.4, "": 0.3}
    elsewhere = CollectorRegistry()
    given = settings.model_copy(update={"domains": tmp_path / "none"})
    elsewhere.register(exporter.Jobs(given))
    assert told(elsewhere) == {"support": 0.4, "parking": 0.4, "": 0.3}, "it sees no packs at all"


def published(
    settings: Settings, repository: Repository, files: Path, version: int, domain: str, state: str
) -> None:
    """A version with its row, made from the one before it that was not rejected."""
    files.mkdir(exist_ok=True)
    parent = version - 2 if version == 4 else version - 1
    facts: dict[str, Any] = {"backend": "b", "languages": [], "recipe": "r", "licence": "l"}
    made = repository.publish("nlu", files, parent=parent, **facts)
    assert made.number == version
    row = {"model": "nlu", "version": version, "state": state, "recipe": "intents"}
    more = {"domain": domain, "parent": parent, "metrics": {}, "created_at": NOW}
    with transaction(settings.database) as connection:
        connection.execute(insert(model_version), row | more)


def test_a_database_that_is_away_is_told_and_outlived(running: Server, tmp_path: Path) -> None:
    migrate(running.url)
    collector = exporter.Jobs(Settings(var=tmp_path, database_url=running.url))

    def told() -> dict[str, float]:
        return {one.name: one.value for family in collector.collect() for one in family.samples}

    assert told()["jobs_exporter_up"] == 1
    with running.away():
        assert told() == {"jobs_exporter_up": 0}
    assert told()["jobs_exporter_up"] == 1


def test_it_is_served_with_others(settings: Settings) -> None:
    served = exporter.start(settings, CollectorRegistry())
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=60) as page:
            text = page.read().decode()
    finally:
        served.close()
    assert "jobs_exporter_up 1.0" in text
    assert 'jobs_finished_total{recipe="intents",state="done"} 0.0' in text
