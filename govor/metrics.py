"""Every metric by name, with its labels and buckets.

A `Metrics` belongs to one app and has a registry of its own: on a shared one only the first app of
a process would be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator.metrics import Info

# Seconds: from a single query of the small classifier to a long generation.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_JOB_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_OUTCOMES = ("ok", "invalid", "shed", "deadline", "cancelled", "error")
_STATUSES = ("2xx", "4xx", "5xx")


class Metrics:
    """What one service counts. Labels are bounded: models, packs and intents that exist."""

    def __init__(self, service: str, registry: CollectorRegistry | None = None) -> None:
        self.service = service
        self.registry = registry or CollectorRegistry(auto_describe=True)
        model = ("service", "model")
        self.requests = self._counter(
            "model_requests_total", "Requests by outcome.", (*model, "outcome")
        )
        self.request_duration = self._histogram(
            "model_request_duration_seconds", "A request from its first to its last byte."
        )
        self.queue_duration = self._histogram(
            "model_queue_duration_seconds", "The wait for a batch."
        )
        self.infer_duration = self._histogram("model_infer_duration_seconds", "The run of a batch.")
        self.batch_size = self._histogram("model_batch_size", "Requests in a batch.", _SIZES)
        self.ready = Gauge("model_ready", "1 when a version serves.", model, registry=self.registry)
        self.info = Gauge(
            "model_info",
            "1 for the version that serves.",
            (*model, "version", "backend"),
            registry=self.registry,
        )
        self.route_duration = Histogram(
            "http_request_duration_seconds",
            "Requests by route; a status is its first digit and xx.",
            ("service", "method", "handler", "status"),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.decode_steps = self._own_counter(
            "generator_decode_steps_total", "Steps of the decoder, whatever their batch."
        )
        self.sphinx_chunks = self._own_counter(
            "stt_sphinx_chunks_total", "Chunks of audio that worker processes decoded."
        )
        self.synthesis_chunks = self._counter(
            "tts_synthesis_chunks_total", "Chunks of audio that engines made.", ("engine",)
        )
        self.turns = self._counter("turns_total", "Turns of conversations.", ("domain", "channel"))
        self.degraded = self._counter(
            "turns_degraded_total", "Turns in which a part did not do its share.", ("part",)
        )
        self.stage_duration = Histogram(
            "turn_stage_duration_seconds",
            "Stages of a turn, `first_audio` and `total` from its beginning.",
            ("stage",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.intents = self._counter("intents_total", "Recognised intents.", ("domain", "intent"))
        self.feedback = self._counter("feedback_total", "Ratings of turns.", ("rating",))
        self.spooled = self._own_counter(
            "records_spooled_total", "Rows that went to disk because the database was away."
        )
        self.dropped = self._own_counter(
            "records_dropped_total", "Rows that found neither database nor room on disk."
        )

    # Prometheus sees no increase in the first value of a series: what an alert counts begins at 0.

    def begin_model(self, model: str) -> None:
        for outcome in _OUTCOMES:
            self.requests.labels(self.service, model, outcome)

    def begin_route(self, method: str, route: str) -> None:
        for status in _STATUSES:
            self.route_duration.labels(self.service, method, route, status)

    def begin_turns(self, domain: str, parts: Iterable[str]) -> None:
        """`parts` are what a turn may have to go on without."""
        self.turns.labels(domain, "api")
        for part in parts:
            self.degraded.labels(part)

    def observe_request(self, model: str, outcome: str, seconds: float) -> None:
        self.requests.labels(self.service, model, outcome).inc()
        self.request_duration.labels(self.service, model).observe(seconds)

    def observe_route(self, method: str, route: str, status: str, seconds: float) -> None:
        """One request to a route, `status` as "2xx"."""
        self.route_duration.labels(self.service, method, route, status).observe(seconds)

    def observe_info(self, info: Info) -> None:
        """A FastAPI route, as prometheus-fastapi-instrumentator tells it; verbs tell of themselves.
        Its own closures would do, but they lose the label `service`."""
        self.observe_route(
            info.method, info.modified_handler, info.modified_status, info.modified_duration
        )

    def observe_turn(self, timings: Mapping[str, float]) -> None:
        """The seconds that each stage of a turn took."""
        for stage, seconds in timings.items():
            self.stage_duration.labels(stage).observe(seconds)

    def observe_batch(
        self, model: str, size: int, waits: Sequence[float], run_seconds: float
    ) -> None:
        """What a `Batcher` tells of each batch, once `model` is bound."""
        queue = self.queue_duration.labels(self.service, model)
        for wait in waits:
            queue.observe(wait)
        if size:
            self.infer_duration.labels(self.service, model).observe(run_seconds)
            self.batch_size.labels(self.service, model).observe(size)

    def serves(self, model: str, version: int, backend: str) -> None:
        """Notes the version that answers from now on."""
        self.info.remove_by_labels({"service": self.service, "model": model})
        self.info.labels(self.service, model, str(version), backend).set(1)

    def watch_ready(self, model: str, ready: Callable[[], tuple[bool, str]]) -> None:
        """Asks a part at every scrape whether it can work."""
        self.begin_model(model)
        self.ready.labels(self.service, model).set_function(lambda: float(ready()[0]))

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _own_counter(self, name: str, text: str) -> Counter:
        """A counter without further labels; `service` keeps apart what `Merged` puts together."""
        return self._counter(name, text, ("service",)).labels(self.service)

    def _histogram(self, name: str, text: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
        labels = ("service", "model")
        return Histogram(name, text, labels, registry=self.registry, buckets=buckets)


class TrainerMetrics:
    """What a worker of the trainer counts; the state of all jobs is read from the database."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self.starts = Counter(
            "job_starts_total", "Attempts at jobs.", ("recipe",), registry=self.registry
        )
        self.duration = Histogram(
            "job_duration_seconds",
            "An attempt at a job, by the state that it left the job in.",
            ("recipe", "state"),
            registry=self.registry,
            buckets=_JOB_SECONDS,
        )


class Merged(Collector):
    """Several registries as one: families of one name become one family."""

    def __init__(self, registries: Iterable[Collector]) -> None:
        self._registries = tuple(registries)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for registry in self._registries:
            for family in registry.collect():
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples.extend(family.samples)
        yield from families.values()


class Exporter:
    """`/metrics` of several registries, on a thread and a port of its own.

    Raises `OSError` when the port is taken; port 0 takes a free one.
    """

    def __init__(self, registries: Iterable[Collector], host: str, port: int) -> None:
        registry = CollectorRegistry()
        registry.register(Merged(registries))
        self._server, self._thread = start_http_server(port, host, registry)
        self.port = self._server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
