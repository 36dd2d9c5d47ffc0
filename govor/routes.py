"""Which service answers which path: the one table that the embedded dispatcher, the proxy's
template and the tests read."""

from __future__ import annotations

SERVICES = ("stt", "nlu", "generator", "tts", "gateway")

ROUTES = {
    "/v1/transcribe": "stt",
    "/v1/understand": "nlu",
    "/v1/generate": "generator",
    "/v1/synthesize": "tts",
}
"""The paths of the four verbs; every other one is the gateway's."""


def service_of(path: str) -> str:
    return ROUTES.get(path, "gateway")
