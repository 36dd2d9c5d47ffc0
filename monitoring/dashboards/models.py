"""Models: what each one costs, apart from its queue, and how good the versions are."""

from __future__ import annotations

from monitoring.dashboards.panels import Board, Panel, panel
from monitoring.objectives import load
from monitoring.recording import VERBS

ACCURACY = 'max by (model, domain) (champion_quality{{{0}metric="accuracy",language="all"}})'
"""Of the version that serves, at its last evaluation; {0} are further matchers."""

_objectives = load()
_accuracy = min(model.accuracy for model in _objectives.models.values())


def _latency(service: str) -> Panel:
    """p50 and p95 of one service's verb, with its objective as a line."""

    def quantile(share: float) -> str:
        buckets = f'rate(http_request_duration_seconds_bucket{{handler="{VERBS[service]}"}}[5m])'
        return f"histogram_quantile({share:g}, sum by (le) ({buckets}))"

    return panel(
        f"{service}: a request",
        f"POST {VERBS[service]}, from its first to its last byte.",
        "s",
        (quantile(0.5), "p50"),
        (quantile(0.95), "p95"),
        objective=_objectives.services[service].p95_seconds,
    )


MODELS = Board(
    "models",
    "Models",
    "What a request to a model is made of, and how good its versions are.",
    {
        "Requests": tuple(_latency(service) for service in _objectives.services),
        "Queue and model": (
            panel(
                "Wait for a batch, p95",
                "Queue time alone. It grows before requests are turned away.",
                "s",
                ("service:model_queue_duration_seconds:p95_5m", "{{service}}"),
            ),
            panel(
                "Run of a batch, p95",
                "Model time alone.",
                "s",
                ("service:model_infer_duration_seconds:p95_5m", "{{service}}"),
            ),
            panel(
                "Requests in a batch",
                "Mean; batches grow by themselves under load.",
                "short",
                (
                    "sum by (service) (rate(model_batch_size_sum[5m]))"
                    " / sum by (service) (rate(model_batch_size_count[5m]))",
                    "{{service}}",
                ),
            ),
            panel(
                "Outcomes",
                "Requests a second by how they ended, all models together.",
                "reqps",
                ("sum by (outcome) (rate(model_requests_total[5m]))", "{{outcome}}"),
            ),
            panel(
                "Parts that can work",
                "1: a version serves.",
                "short",
                ("min by (service, model) (model_ready)", "{{service}} {{model}}"),
            ),
            panel(
                "Versions that serve",
                "Replicas by the version that they serve; two lines of one model: a swap.",
                "short",
                ("count by (model, version) (model_info)", "{{model}} {{version}}"),
            ),
        ),
        "Quality": (
            panel(
                "Champion's accuracy",
                "The last evaluation of the version that serves, on its frozen set.",
                "percentunit",
                (ACCURACY.format(""), "{{model}} {{domain}}"),
                objective=_accuracy,
                less_is_worse=True,
            ),
            panel(
                "Champion's accuracy by language",
                "Where one language falls behind the other.",
                "percentunit",
                (
                    "max by (model, domain, language)"
                    ' (champion_quality{metric="accuracy",language!="all"})',
                    "{{model}} {{domain}} {{language}}",
                ),
                objective=_accuracy,
                less_is_worse=True,
            ),
            panel(
                "Accuracy of each version",
                "Versions that were evaluated last, champions and candidates.",
                "percentunit",
                (
                    "max by (model, version, domain)"
                    ' (model_quality{metric="accuracy",language="all"})',
                    "{{model}} {{version}} {{domain}}",
                ),
                objective=_accuracy,
                less_is_worse=True,
            ),
        ),
    },
)
