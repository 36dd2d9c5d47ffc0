"""Speech to text: `POST /v1/transcribe`, pocketsphinx on the sentences of domain packs."""

from __future__ import annotations

from functools import partial

from fastapi import FastAPI

from govor.metrics import Metrics
from govor.model_service import create_model_service
from govor.repository import Version
from services.stt import backends
from services.stt.api import add_routes
from services.stt.backends.silero import SpeechDetector
from services.stt.settings import SttSettings


def create_app(settings: SttSettings | None = None) -> FastAPI:
    settings = settings or SttSettings()
    pack_languages: dict[str, list[str]] = {}

    def load(version: Version, metrics: Metrics) -> backends.Backend:
        for domain, facts in version.manifest.params["domains"].items():
            pack_languages[domain] = facts["languages"]
        return backends.load(
            version,
            workers=settings.stt_workers,
            max_queued=settings.stt_max_queued,
            observe=partial(metrics.observe_batch, version.model),
            count_chunk=metrics.sphinx_chunks.inc,
        )

    def load_vad(version: Version, _: Metrics) -> SpeechDetector:
        return SpeechDetector(version, settings.threads)

    app = create_model_service(
        "stt",
        settings,
        description="Writes down what somebody says, in English and (closed lists) in Russian.",
        loaders={"vad": load_vad}
        | {f"stt-{language}": load for language in settings.stt_languages},
    )
    add_routes(app, settings, pack_languages)
    return app
