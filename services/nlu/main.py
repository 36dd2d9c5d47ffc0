"""Understanding: `POST /v1/understand`, the intent and the entities of an utterance."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI

from govor.metrics import Metrics
from govor.model_service import create_model_service
from govor.repository import Version
from services.nlu import backends
from services.nlu.api import add_routes
from services.nlu.settings import NluSettings


def create_app(settings: NluSettings | None = None) -> FastAPI:
    settings = settings or NluSettings()

    def load(version: Version, metrics: Metrics) -> backends.Backend:
        return backends.load(
            version,
            threads=settings.threads,
            device=settings.device,
            max_batch=settings.nlu_max_batch,
            max_queued=settings.max_queued,
            observe=partial(metrics.observe_batch, version.model),
        )

    app = create_model_service(
        "nlu",
        settings,
        description="Says what an utterance wants, and the values it names.",
        loaders={"nlu": load},
    )
    add_routes(app, settings)
    return app
