"""Text generation: `POST /v1/generate`, from prompts, messages or the fields of a model version."""

from __future__ import annotations

from fastapi import FastAPI

from govor.metrics import Metrics
from govor.model_service import create_model_service
from govor.repository import Version
from services.generator import backends
from services.generator.api import add_routes
from services.generator.settings import GeneratorSettings


def create_app(settings: GeneratorSettings | None = None) -> FastAPI:
    settings = settings or GeneratorSettings()

    def load(version: Version, metrics: Metrics) -> backends.Backend:
        seconds = metrics.infer_duration.labels(metrics.service, version.model)
        batch = metrics.batch_size.labels(metrics.service, version.model)
        queue = metrics.queue_duration.labels(metrics.service, version.model)

        def observe(texts: int, run_seconds: float) -> None:
            metrics.decode_steps.inc()
            batch.observe(texts)
            seconds.observe(run_seconds)

        return backends.load(
            version,
            slots=settings.generator_slots,
            threads=settings.threads,
            device=settings.device,
            max_queued=settings.max_queued,
            max_new_tokens=settings.max_new_tokens,
            observe=observe,
            waited=queue.observe,
        )

    app = create_model_service(
        "generator",
        settings,
        description="Draws texts, several at once.",
        loaders={"generator": load},
    )
    add_routes(app, settings)
    return app
