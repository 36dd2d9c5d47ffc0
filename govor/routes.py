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

PROMISED_SECONDS = {"stt": 5.0, "nlu": 0.05, "generator": 1.0, "tts": 1.0, "gateway": 2.5}
"""Who gives a service less time than this has not waited for what we promise: their 504 is no error
of ours. At most the `p95_seconds` of the objectives."""


def service_of(path: str) -> str:
    return ROUTES.get(path, "gateway")
