"""Overview: traffic, errors, latency and saturation of each service; the page to open first."""

from __future__ import annotations

from monitoring.dashboards.panels import Board, panel
from monitoring.objectives import load

_objectives = load()
_error_rate = max(service.error_rate for service in _objectives.services.values())
_shed_rate = max(service.shed_rate or 0 for service in _objectives.services.values())

# Disks, not what only looks like one: memory, layers of images, files that the engine mounts.
_disk = 'fstype!~"tmpfs|ramfs|overlay|squashfs|efivarfs",mountpoint!~"/(boot|etc|run).*"'
DISK_FREE = (
    f"min by (mountpoint) (node_filesystem_avail_bytes{{{_disk}}} / node_filesystem_size_bytes)"
)
REDIS_USED = "max(redis_memory_used_bytes / (redis_memory_max_bytes > 0))"

OVERVIEW = Board(
    "overview",
    "Overview",
    "Traffic, errors, latency and saturation of each service. Red lines are objectives.",
    {
        "Traffic": (
            panel(
                "Requests",
                "Requests to /v1 a second. The gateway's turns call the other services.",
                "reqps",
                ("service:http_requests:rate5m", "{{service}}"),
            ),
            panel(
                "Turns",
                "Turns of conversations a second, by domain pack.",
                "reqps",
                ("sum by (domain) (rate(turns_total[5m]))", "{{domain}}"),
            ),
            panel(
                "Replicas that answer",
                "Containers whose /metrics answers. 0, or a line that ends: ServiceDown.",
                "short",
                ("sum by (job) (up)", "{{job}}"),
            ),
        ),
        "Errors": (
            panel(
                "Requests that fail",
                "Share of requests answered 5xx, over five minutes.",
                "percentunit",
                ("service:http_errors:ratio5m", "{{service}}"),
                objective=_error_rate,
            ),
            panel(
                "Error budget burnt",
                f"Times the pace that the objective of {_objectives.availability:.1%} allows; at"
                " 14.4 for an hour a month's budget is gone in two days.",
                "short",
                (f"service:http_errors:ratio1h / {_objectives.error_budget:g}", "{{service}}, 1 h"),
                (f"service:http_errors:ratio6h / {_objectives.error_budget:g}", "{{service}}, 6 h"),
                objective=14.4,
            ),
            panel(
                "Requests turned away",
                "Share of requests answered 503 at once, because the model's queue is full.",
                "percentunit",
                ("service:model_shed:ratio5m", "{{service}}"),
                objective=_shed_rate,
            ),
        ),
        "Latency": (
            panel(
                "p95 beside its objective",
                "1: exactly as slow as promised. Seconds are on the dashboard Models.",
                "short",
                (
                    "service:verb_duration_seconds:p95_5m / on (service) objective:p95_seconds",
                    "{{service}}",
                ),
                objective=1,
            ),
            panel(
                "p95",
                "95 % of requests to a service's verb are faster.",
                "s",
                ("service:verb_duration_seconds:p95_5m", "{{service}}"),
            ),
            panel(
                "Wait for a batch beside its objective",
                "p95 of the queue in front of a model; 1: as long as promised.",
                "short",
                (
                    "service:model_queue_duration_seconds:p95_5m"
                    " / on (service) objective:queue_wait_seconds",
                    "{{service}}",
                ),
                objective=1,
            ),
        ),
        "Saturation": (
            panel(
                "Processor",
                "Cores that the processes which answer use; what recognises speech or trains is a"
                " process of its own, seen in `docker stats`.",
                "short",
                ("sum by (job) (rate(process_cpu_seconds_total[5m]))", "{{job}}"),
            ),
            panel(
                "Memory",
                "Memory of the processes which answer.",
                "bytes",
                ("sum by (job) (process_resident_memory_bytes)", "{{job}}"),
            ),
            panel(
                "Load of the machine",
                "Processes that want a core, a core.",
                "percentunit",
                (
                    "node_load1 / on (instance)"
                    ' count by (instance) (node_cpu_seconds_total{mode="idle"})',
                    "load, 1 min",
                ),
                objective=1,
            ),
            panel(
                "Disk that is free",
                "Share of each disk.",
                "percentunit",
                (DISK_FREE, "{{mountpoint}}"),
                objective=_objectives.capacity.disk_free,
                less_is_worse=True,
            ),
            panel(
                "Redis memory",
                "Share of maxmemory; at 1 Redis refuses writes, and jobs ring no bell.",
                "percentunit",
                (REDIS_USED, "used"),
                objective=_objectives.capacity.redis_memory,
            ),
            panel(
                "Database",
                "1: it answers the exporter of the trainer. Rows on disk wait for it to come back.",
                "short",
                ("max(jobs_exporter_up)", "answers"),
                ("sum(rate(records_spooled_total[5m]))", "rows spooled a second"),
            ),
        ),
    },
)
