"""Text to speech: `POST /v1/synthesize`, voices of flite and espeak-ng."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI

from govor.metrics import Metrics
from govor.model_service import create_model_service
from govor.repository import Version
from services.tts import backends
from services.tts.api import add_routes
from services.tts.settings import TtsSettings
from services.tts.speaker import Speaker


def create_app(settings: TtsSettings | None = None) -> FastAPI:
    settings = settings or TtsSettings()

    def load(version: Version, metrics: Metrics) -> Speaker:
        return Speaker(
            backends.load(version),
            name=version.model,
            max_queued=settings.tts_max_queued,
            observe=partial(metrics.observe_batch, version.model),
        )

    app = create_model_service(
        "tts",
        settings,
        description="Speaks texts in English and Russian.",
        loaders={f"tts-{language}": load for language in settings.tts_languages},
    )
    add_routes(app, settings)
    return app
