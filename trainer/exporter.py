"""Jobs, training and quality as metrics, read from the database whenever Prometheus asks.

One process exports them (`trainer beat`): they are the truth of the table, not of a worker, so they
survive restarts and are not counted twice. A scrape costs 9 ms (SQLite, measured on two cores).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, get_args

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Row
from sqlalchemy.exc import SQLAlchemyError

from govor.config import Settings
from govor.database import transaction
from govor.domains import pack_names
from govor.errors import NotFound
from govor.jobs import RECIPES
from govor.metrics import Exporter
from govor.repository import Repository, VersionBroken
from govor.schemas.jobs import LIVE, QUEUES, Progress, State
from govor.tables import evaluation, job, model_version

log = logging.getLogger(__name__)

ALL = "all"
"""The label `language` of figures over all languages."""
# Rows that are looked at, the newest: some 60 retrains of a pack in two languages.
_LATEST = select(evaluation).order_by(evaluation.c.at.desc()).limit(400)
_VERSIONS = 10  # of a model that are shown, the newest


def start(settings: Settings, *registries: CollectorRegistry) -> Exporter:
    """Serves these metrics, and those of `registries`, on the settings' address. Raises `OSError`
    when its port is taken."""
    collectors = [Jobs(settings), ProcessCollector(registry=None), *registries]
    return Exporter(collectors, settings.metrics_host, settings.metrics_port)


class Jobs(Collector):
    """All of it; with a database that is away `jobs_exporter_up` is 0 and the rest is missing."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.database
        self._domains = settings.domains_folder
        self._repository = Repository(settings.repository_folder, settings.bundled_folder)

    def collect(self) -> Iterator[Metric]:
        found: list[Metric] = []
        try:
            with transaction(self._url) as connection:
                for read in (_jobs, _queues, _running, _training, _durations, self._quality):
                    found += read(connection)
        except SQLAlchemyError as error:
            log.warning("no metrics of jobs: %s", str(error).splitlines()[0])
            found = []
        yield from found
        up = GaugeMetricFamily("jobs_exporter_up", "1 when the database answered.")
        up.add_metric([], float(bool(found)))
        yield up

    def _quality(self, connection: Connection) -> Iterable[Metric]:
        labels = ["model", "version", "domain", "language", "metric"]
        every = GaugeMetricFamily(
            "model_quality", "The last evaluation of each version.", labels=labels
        )
        champions = GaugeMetricFamily(
            "champion_quality",
            "The last evaluation of what serves each domain whose pack is there.",
            labels=[label for label in labels if label != "version"],
        )
        rows = _newest(connection.execute(_LATEST))
        shown = _newest_versions(rows)
        for row in rows:
            if row.version in shown[row.model]:
                about = [row.model, str(row.version), row.domain or "", row.language or ALL]
                for name, value in row.metrics.items():
                    every.add_metric([*about, name], value)
        there = pack_names(self._domains)  # none where this process was given no packs
        for model in connection.scalars(select(evaluation.c.model).distinct()).all():
            for row in _of_champion(connection, model, self._lineage(connection, model)):
                if there and row.domain is not None and row.domain not in there:
                    continue  # nobody is served by it, and nothing can retrain it
                for name, value in row.metrics.items():
                    champions.add_metric(
                        [model, row.domain or "", row.language or ALL, name], value
                    )
        return every, champions

    def _lineage(self, connection: Connection, model: str) -> list[int]:
        """The champion, the version that it was built on, and so on."""
        columns = model_version.c.version, model_version.c.parent
        rows = connection.execute(select(*columns).where(model_version.c.model == model))
        parents = {row.version: row.parent for row in rows}
        found: list[int] = []
        with contextlib.suppress(NotFound, VersionBroken, OSError):
            number = self._repository.deployment(model).champion
            while number is not None and number not in found:
                found.append(number)
                if number not in parents:  # bundled, or made while the database was away
                    parents[number] = self._repository.manifest(model, number).parent
                number = parents[number]
        return found


def _jobs(connection: Connection) -> Iterable[Metric]:
    """Every known recipe from 0 on, so that the first failure is an increase."""
    now = GaugeMetricFamily("jobs", "Jobs by state.", labels=["recipe", "queue", "state"])
    ended = CounterMetricFamily("jobs_finished", "Jobs that ended.", labels=["recipe", "state"])
    counts = {
        (name, recipe.queue, state): 0
        for name, recipe in RECIPES.items()
        for state in get_args(State)
    }
    asked = select(job.c.recipe, job.c.queue, job.c.state, func.count())
    for recipe, queue, state, count in connection.execute(
        asked.group_by(job.c.recipe, job.c.queue, job.c.state)
    ):
        counts[recipe, queue, state] = count
    finished: dict[tuple[str, str], int] = {}
    for (recipe, queue, state), count in counts.items():
        now.add_metric([recipe, queue, state], count)
        if state not in LIVE:
            finished[recipe, state] = finished.get((recipe, state), 0) + count
    for (recipe, state), count in finished.items():
        ended.add_metric([recipe, state], count)
    return now, ended


def _queues(connection: Connection) -> Iterable[Metric]:
    oldest = GaugeMetricFamily(
        "jobs_oldest_queued_seconds",
        "How long a job has waited in a queue, the longest.",
        labels=["queue"],
    )
    since_when = func.min(func.coalesce(job.c.returned_at, job.c.created_at))
    asked = select(job.c.queue, since_when).where(job.c.state == "queued")
    since = {row[0]: row[1] for row in connection.execute(asked.group_by(job.c.queue))}
    for queue in sorted({*QUEUES, *since}):
        oldest.add_metric([queue], _seconds_since(since[queue]) if queue in since else 0)
    return (oldest,)


def _running(connection: Connection) -> Iterable[Metric]:
    expired = GaugeMetricFamily(
        "jobs_lease_expired", "Running jobs whose worker fell silent.", labels=["recipe"]
    )
    silent = GaugeMetricFamily(
        "training_silent_seconds",
        "Since a running job last told of its progress, the longest.",
        labels=["recipe"],
    )
    late, quiet = dict.fromkeys(RECIPES, 0), dict.fromkeys(RECIPES, 0.0)
    columns = job.c.recipe, job.c.progress, job.c.started_at, job.c.lease_until
    for row in connection.execute(select(*columns).where(job.c.state == "running")):
        overdue = row.lease_until is None or _seconds_since(row.lease_until) > 0
        late[row.recipe] = late.get(row.recipe, 0) + overdue
        told = Progress.model_validate(row.progress).at if row.progress else row.started_at
        quiet[row.recipe] = max(quiet.get(row.recipe, 0.0), _seconds_since(told))
    for recipe in late:
        expired.add_metric([recipe], late[recipe])
        silent.add_metric([recipe], quiet[recipe])
    return expired, silent


def _training(connection: Connection) -> Iterable[Metric]:
    """What the newest job of each recipe told last; nothing before its first job."""
    shown: dict[str, Callable[[Progress], float | None]] = {
        "training_epoch": lambda told: told.epoch,
        "training_loss": lambda told: told.loss,
        "training_progress_ratio": lambda told: told.done,
    }
    families = {
        name: GaugeMetricFamily(name, "Of the newest job of a recipe.", labels=["recipe"])
        for name in shown
    }
    for recipe in RECIPES:
        asked = select(job.c.progress).where(job.c.recipe == recipe, job.c.started_at.is_not(None))
        progress = connection.scalar(asked.order_by(job.c.started_at.desc()).limit(1))
        told = Progress.model_validate(progress) if progress else None
        for name, read in shown.items():
            if told is not None and (value := read(told)) is not None:
                families[name].add_metric([recipe], value)
    return families.values()


def _durations(connection: Connection) -> Iterable[Metric]:
    """Of the last job that ended: the workers' own histogram begins anew with each of them."""
    last = GaugeMetricFamily(
        "job_last_duration_seconds", "Of the last job of a recipe.", labels=["recipe", "state"]
    )
    columns = job.c.state, job.c.started_at, job.c.finished_at
    ended = select(*columns).where(job.c.started_at.is_not(None), job.c.finished_at.is_not(None))
    for recipe in RECIPES:
        newest = ended.where(job.c.recipe == recipe).order_by(job.c.finished_at.desc()).limit(1)
        for state, started, finished in connection.execute(newest):
            last.add_metric([recipe, state], (finished - started).total_seconds())
    return (last,)


def _of_champion(connection: Connection, model: str, lineage: Sequence[int]) -> list[Row[Any]]:
    """The newest rows of each domain and language. A retrain of one domain evaluates that one: the
    others' heads are copied from the parent bit for bit, and what was measured there still holds.
    """
    mine = (evaluation.c.model == model) & evaluation.c.version.in_(lineage)
    last = select(evaluation.c.domain, func.max(evaluation.c.version)).where(mine)
    found: list[Row[Any]] = []
    for domain, version in connection.execute(last.group_by(evaluation.c.domain)).all():
        about = mine & evaluation.c.domain.is_not_distinct_from(domain)
        asked = select(evaluation).where(about, evaluation.c.version == version)
        found += _newest(connection.execute(asked.order_by(evaluation.c.at.desc())))
    return found


def _newest(rows: Iterable[Row[Any]]) -> list[Row[Any]]:
    """Of rows from the newest on, the first of each version, domain and language."""
    newest: dict[tuple[Any, ...], Row[Any]] = {}
    for row in rows:
        newest.setdefault((row.model, row.version, row.domain, row.language), row)
    return list(newest.values())


def _newest_versions(rows: Iterable[Row[Any]]) -> dict[str, list[int]]:
    """By model: a label must not grow with every retrain."""
    versions: dict[str, set[int]] = {}
    for row in rows:
        versions.setdefault(row.model, set()).add(row.version)
    return {model: sorted(numbers)[-_VERSIONS:] for model, numbers in versions.items()}


def _seconds_since(moment: datetime) -> float:
    return (datetime.now(UTC) - moment).total_seconds()
