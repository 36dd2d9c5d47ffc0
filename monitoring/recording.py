"""Recording rules: what alerts and panels both ask, worked out once, and the objectives as series.

Names are `level:metric:operation`; `service` is the service that a request was made to, `part` what
a turn went on without.
"""

from __future__ import annotations

from typing import Any

from govor.routes import ROUTES
from monitoring.objectives import Objectives

VERBS = {**{service: path for path, service in ROUTES.items()}, "gateway": "/v1/converse"}
"""The route of each service whose latency is promised."""

# Probes and pages are no traffic.
_COUNT = 'http_request_duration_seconds_count{handler=~"/v1/.*"'
_OF_VERBS = f'{{handler=~"{"|".join(VERBS.values())}"}}'

WINDOWS = ("5m", "30m", "1h", "6h")
"""Of the error ratio: five minutes for its own alert, pairs of them for the burn rates."""


def groups(objectives: Objectives) -> dict[str, Any]:
    """The content of `recording.yml`."""
    return {
        "groups": [
            {"name": "requests", "rules": [*_requests(), *_latency(), *_models(), *_turns()]},
            {"name": "objectives", "rules": _objectives(objectives)},
        ]
    }


def _requests() -> list[dict[str, Any]]:
    rules = []
    for window in WINDOWS:
        traffic = f"sum by (service) (rate({_COUNT}}}[{window}]))"
        errors = f'sum by (service) (rate({_COUNT}, status="5xx"}}[{window}]))'
        rate, ratio = f"service:http_requests:rate{window}", f"service:http_errors:ratio{window}"
        rules.append(_rule(rate, traffic))
        # Without a single error there is no series of errors: 0, not nothing.
        rules.append(_rule(ratio, f"({errors} or 0 * {rate}) / {rate}"))
    return rules


def _latency() -> list[dict[str, Any]]:
    buckets = f"sum by (service, le) (rate(http_request_duration_seconds_bucket{_OF_VERBS}[5m]))"
    count = f"sum by (service) (rate(http_request_duration_seconds_count{_OF_VERBS}[5m]))"
    return [
        _rule("service:verb_requests:rate5m", count),
        _rule("service:verb_duration_seconds:p95_5m", f"histogram_quantile(0.95, {buckets})"),
    ]


def _models() -> list[dict[str, Any]]:
    def p95(metric: str) -> str:
        return f"histogram_quantile(0.95, sum by (service, le) (rate({metric}_bucket[5m])))"

    requests = "sum by (service) (rate(model_requests_total[5m]))"
    shed = 'sum by (service) (rate(model_requests_total{outcome="shed"}[5m]))'
    return [
        _rule("service:model_queue_duration_seconds:p95_5m", p95("model_queue_duration_seconds")),
        _rule("service:model_infer_duration_seconds:p95_5m", p95("model_infer_duration_seconds")),
        _rule("service:model_requests:rate5m", requests),
        _rule(
            "service:model_shed:ratio5m",
            f"({shed} or 0 * service:model_requests:rate5m) / service:model_requests:rate5m",
        ),
    ]


def _turns() -> list[dict[str, Any]]:
    rate = "part:turns_degraded:rate5m"
    turns = "scalar(sum(rate(turns_total[5m])))"
    return [
        _rule(rate, "sum by (part) (rate(turns_degraded_total[5m]))"),
        _rule("part:turns_degraded:ratio5m", f"{rate} / {turns}"),
    ]


def _objectives(objectives: Objectives) -> list[dict[str, Any]]:
    """One number a series, so that one alert does for all services."""
    rules = []
    for field in ("p95_seconds", "error_rate", "queue_wait_seconds", "shed_rate"):
        for name, service in objectives.services.items():
            if (value := getattr(service, field)) is not None:
                rules.append(_constant(f"objective:{field}", value, service=name))
    for name, model in objectives.models.items():
        rules.append(_constant("objective:accuracy", model.accuracy, model=name))
    return rules


def _rule(record: str, expr: str) -> dict[str, Any]:
    return {"record": record, "expr": expr}


def _constant(record: str, value: float, **labels: str) -> dict[str, Any]:
    return {"record": record, "expr": f"vector({value:g})", "labels": labels}
