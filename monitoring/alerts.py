"""The alerts: what is wrong, who is woken, and where to look.

`page` wakes a person, `ticket` waits for the morning. Each alert names its runbook
(`docs/runbooks/<name>.md`), the panel that shows it and the first command to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from monitoring.dashboards import link
from monitoring.dashboards.models import ACCURACY
from monitoring.dashboards.overview import DISK_FREE, REDIS_USED
from monitoring.objectives import Objectives

SCRAPED = (
    *("gateway", "stt", "nlu", "generator", "tts", "worker", "beat"),
    *("redis-exporter", "nginx-exporter", "node-exporter", "alertmanager"),
)
"""The jobs of prometheus.yml that must answer. Prometheus itself is missed by the watchdog, Grafana
by whoever opens a panel."""
WAITING = ("worker", "beat", "redis-exporter", "nginx-exporter", "node-exporter")
"""Those of them that no caller misses: they wait for the morning, and so does Redis."""

# The door of the house: {{ $externalURL }} is Prometheus behind it.
_DOOR = '{{ $externalURL | reReplaceAll "/prometheus/?$" "" }}'
_LOGS = "docker compose ps --all {0} && docker compose logs --tail 50 {0}"
# How many replicas there are comes before another one: a command with a number may take some away.
_BUSY = "docker compose ps {{ $labels.service }} && docker stats --no-stream"


@dataclass(frozen=True)
class Alert:
    """`panel` is "board / title"; `labels` go with the alert beside its severity."""

    name: str
    expr: str
    hold: str
    severity: Literal["page", "ticket", "none"]
    summary: str
    panel: str
    command: str
    labels: dict[str, str] = field(default_factory=dict)

    def rule(self) -> dict[str, Any]:
        return {
            "alert": self.name,
            "expr": self.expr,
            "for": self.hold,
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "runbook": f"docs/runbooks/{self.name}.md",
                "panel": _DOOR + link(self.panel),
                "command": self.command,
            },
        }


def groups(objectives: Objectives) -> dict[str, Any]:
    """The content of `alerts.yml`."""
    named = {
        "services": [*_services(), *_requests(objectives), *_burn_rates(objectives)],
        "turns": [_degraded(objectives)],
        "queues": _queues(objectives),
        "jobs": _jobs(objectives),
        "models": [_accuracy(name, model.recipe) for name, model in objectives.models.items()],
        "capacity": _capacity(objectives),
        "watchdog": [_watchdog()],
    }
    return {
        "groups": [
            {"name": name, "rules": [alert.rule() for alert in alerts]}
            for name, alerts in named.items()
        ]
    }


def _services() -> list[Alert]:
    # Redis and nginx are known by what their exporters say of them.
    missed = [job for job in SCRAPED if job not in WAITING]
    return [
        _down(f'job!~"{"|".join(WAITING)}"', missed, "nginx", "page"),
        _down(f'job=~"{"|".join(WAITING)}"', WAITING, "redis", "ticket"),
        Alert(
            "DatabaseAway",
            "max(jobs_exporter_up) == 0",
            "1m",
            "page",
            "the database does not answer; turns go on from memory and spool to disk",
            "overview / Database",
            _LOGS.format("postgres"),
        ),
    ]


def _down(
    matcher: str, jobs: Sequence[str], behind: str, severity: Literal["page", "ticket"]
) -> Alert:
    """Of these jobs, and of what the exporter of `behind` tells."""
    # A stopped container has no address, so no target and no `up`: hence absent().
    gone = " or ".join(f'absent(up{{job="{job}"}})' for job in jobs)
    return Alert(
        "ServiceDown",
        f"max by (job) (up{{{matcher}}}) == 0 or {gone}"
        f' or label_replace(max({behind}_up) == 0, "job", "{behind}", "", "")',
        "1m",
        severity,
        "{{ $labels.job }} does not answer",
        "overview / Replicas that answer",
        _LOGS.format("{{ $labels.job }}"),
        {"service": "{{ $labels.job }}"},  # by it the service's other alerts are silenced
    )


def _requests(objectives: Objectives) -> list[Alert]:
    return [
        Alert(
            "ErrorRate",
            "service:http_errors:ratio5m > on (service) objective:error_rate"
            f" and {_enough_errors(objectives, '5m', 300)}",
            "1m",
            "page",
            "{{ $labels.service }}: {{ $value | humanizePercentage }} of requests fail",
            "overview / Requests that fail",
            "docker compose logs --since 10m {{ $labels.service }} | grep -E 'ERROR|Traceback'",
        ),
        Alert(
            "LatencyHigh",
            "service:verb_duration_seconds:p95_5m > on (service) objective:p95_seconds"
            " and on (service) service:verb_requests:rate5m * 300"
            f" >= {objectives.minimum_requests}",
            "5m",
            "page",
            "{{ $labels.service }}: 5 % of requests take longer than"
            " {{ $value | humanizeDuration }}",
            "overview / p95 beside its objective",
            "docker stats --no-stream",
        ),
    ]


def _burn_rates(objectives: Objectives) -> list[Alert]:
    """Two windows each: the long one for weight, the short one so that it ends soon after.

    14.4 times the budget for an hour is 2 % of a month's, 6 times for six hours is 5 %.
    """

    def burning(short: str, long: str, seconds: int, factor: float) -> str:
        limit = f"{factor * objectives.error_budget:g}"
        return (
            f"service:http_errors:ratio{long} > {limit}"
            f" and on (service) service:http_errors:ratio{short} > {limit}"
            f" and {_enough_errors(objectives, long, seconds)}"
        )

    common = ("overview / Error budget burnt", "docker compose logs --since 1h {0} | grep ERROR")
    panel, command = common[0], common[1].format("{{ $labels.service }}")
    text = "{{ $labels.service }}: {{ $value | humanizePercentage }} of requests failed in "
    return [
        Alert(
            "ErrorBudgetBurnFast",
            burning("5m", "1h", 3600, 14.4),
            "2m",
            "page",
            text + "an hour; a month's error budget lasts two days at this rate",
            panel,
            command,
        ),
        Alert(
            "ErrorBudgetBurnSlow",
            burning("30m", "6h", 21600, 6),
            "15m",
            "ticket",
            text + "six hours; a month's error budget lasts five days at this rate",
            panel,
            command,
        ),
    ]


def _enough_errors(objectives: Objectives, window: str, seconds: int) -> str:
    errors = f"service:http_errors:ratio{window} * service:http_requests:rate{window} * {seconds}"
    # A rate is a little less than the count over its window.
    return f"on (service) {errors} > {objectives.minimum_errors} - 0.5"


def _degraded(objectives: Objectives) -> Alert:
    """What a service's own counters miss: a part that hangs costs its share of every turn."""
    return Alert(
        "Degraded",
        f"part:turns_degraded:ratio5m > {objectives.turns.degraded_rate:g}"
        f" and part:turns_degraded:rate5m * 300 > {objectives.minimum_errors} - 0.5",
        "1m",
        "page",
        "{{ $value | humanizePercentage }} of turns go on without {{ $labels.part }}",
        "conversations / Turns that went on without a part",
        "docker compose logs --since 10m gateway | grep 'goes on without {{ $labels.part }}'",
        {"service": "{{ $labels.part }}"},
    )


def _queues(objectives: Objectives) -> list[Alert]:
    enough = (
        f" and on (service) service:model_requests:rate5m * 300 >= {objectives.minimum_requests}"
    )
    return [
        Alert(
            "QueueWait",
            "service:model_queue_duration_seconds:p95_5m"
            " > on (service) objective:queue_wait_seconds" + enough,
            "5m",
            "ticket",
            "{{ $labels.service }}: 5 % of requests wait longer than"
            " {{ $value | humanizeDuration }} for a batch",
            "models / Wait for a batch, p95",
            _BUSY,
        ),
        Alert(
            "Shedding",
            "service:model_shed:ratio5m > on (service) objective:shed_rate" + enough,
            "1m",
            "page",
            "{{ $labels.service }} turns {{ $value | humanizePercentage }} of requests away",
            "overview / Requests turned away",
            _BUSY,
        ),
    ]


def _jobs(objectives: Objectives) -> list[Alert]:
    jobs = objectives.jobs
    listed = "docker compose exec worker python -m trainer jobs"
    return [
        Alert(
            "JobFailed",
            'sum by (recipe) (increase(jobs_finished_total{state=~"failed|dead"}[30m])) > 0',
            "0s",
            "ticket",
            "a job of the recipe {{ $labels.recipe }} failed",
            "training / Jobs ended",
            listed,
        ),
        Alert(
            "JobStuck",
            "max by (recipe) (jobs_lease_expired) > 0"
            f" or max by (recipe) (training_silent_seconds) > {jobs.silent_seconds}",
            "3m",
            "ticket",
            "a job of the recipe {{ $labels.recipe }} neither ends nor says how far it is",
            "training / Running jobs that say nothing",
            listed,
        ),
        Alert(
            "Backlog",
            f"max by (queue) (jobs_oldest_queued_seconds) > {jobs.queued_seconds}",
            "1m",
            "ticket",
            "a job has waited {{ $value | humanizeDuration }} in the queue {{ $labels.queue }}",
            "training / Longest wait for a worker",
            listed,
        ),
        Alert(
            "NoWorker",
            f"max(jobs_oldest_queued_seconds) > {jobs.workerless_seconds}"
            ' unless (sum(up{job="worker"}) > 0)',
            "1m",
            "ticket",
            "a job has waited {{ $value | humanizeDuration }} and there is no worker",
            "training / Workers",
            _LOGS.format("worker"),
        ),
    ]


def _accuracy(model: str, recipe: str) -> Alert:
    figure = ACCURACY.format(f'model="{model}",')
    return Alert(
        "AccuracyUnderGate",
        f"{figure} < on (model) group_left objective:accuracy",
        "1m",
        "ticket",
        "{{ $labels.model }} understands {{ $value | humanizePercentage }} of"
        " {{ $labels.domain }}'s frozen set; a retrain is asked for",
        "models / Champion's accuracy",
        "docker compose exec worker python -m trainer jobs",
        {"retrain": recipe},
    )


def _capacity(objectives: Objectives) -> list[Alert]:
    capacity = objectives.capacity
    return [
        Alert(
            "DiskFull",
            f"{DISK_FREE} < {capacity.disk_free:g}",
            "5m",
            "page",
            "{{ $value | humanizePercentage }} of the disk under {{ $labels.mountpoint }} is free",
            "overview / Disk that is free",
            "docker system df",
        ),
        Alert(
            "RedisMemory",
            f"{REDIS_USED} > {capacity.redis_memory:g}",
            "5m",
            "ticket",
            "Redis uses {{ $value | humanizePercentage }} of its memory;"
            " at 100 % it refuses the doorbell, and jobs begin later",
            "overview / Redis memory",
            "docker compose logs --tail 50 redis worker",
        ),
    ]


def _watchdog() -> Alert:
    return Alert(
        "Watchdog",
        "vector(1)",
        "0s",
        "none",
        "always fires: whoever misses it has lost Prometheus or Alertmanager",
        "overview / Replicas that answer",
        _LOGS.format("prometheus alertmanager"),
    )
