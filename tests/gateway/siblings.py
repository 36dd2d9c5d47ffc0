"""Small services that speak the four verbs' protocol: some answer, some fail, some are slow.

They are for what the gateway does around its siblings; what the real engines answer is tested end
to end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from govor.clients import Siblings, connect
from govor.transport import StreamingTransport

FORTUNE = "The stars are kind to you. Rest a little, and trust what you know."
INTENTS = {
    "stars": "fortune",
    "open": "hours",
    "money": "refund",
    "yes": "affirm",
    "no": "deny",
    "звёзды": "fortune",
}
SIGNS = {"leo": "leo", "virgo": "virgo", "лев": "leo"}
RATE = 8000


class Script:
    """What the small services were asked, and how many of their answers were cut short."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any], Mapping[str, str]]] = []
        self.unfinished = 0
        self.transcript = "read me the stars leo"

    def requests(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body, _ in self.asked if asked == path]

    async def note(self, request: Request) -> dict[str, Any]:
        raw = await request.body()
        kind = request.headers.get("content-type", "")
        body = json.loads(raw) if kind == "application/json" else {"bytes": len(raw)}
        self.asked.append((request.url.path, body, dict(request.headers)))
        return body

    async def transcribe(self, request: Request) -> Response:
        body = await self.note(request)
        if body["bytes"] < 10:
            error = {"message": "no audio", "type": "invalid_request_error", "param": "file"}
            return JSONResponse({"error": {**error, "code": "audio_unreadable"}}, 400)
        found = {"id": "t", "text": self.transcript, "language": "en", "duration": 1.0}
        rest = {"confidence": 0.9, "recognition": "phrase", "model": "stt-en", "version": 1}
        return JSONResponse({**found, **rest, "timings": {}})

    async def understand(self, request: Request) -> Response:
        text = (await self.note(request))["text"]
        words = text.lower().split()
        intent = next((INTENTS[word] for word in words if word in INTENTS), None)
        values = {"sign": SIGNS, "order": {"a1": "A1"}}
        entities = [
            {
                "entity": entity,
                "value": known[word],
                "start": text.lower().index(word),
                "end": text.lower().index(word) + len(word),
                "confidence": 1.0,
            }
            for word in words
            for entity, known in values.items()
            if word in known
        ]
        top = {"name": intent, "confidence": 0.9}
        found = {"text": text, "language": "en", "intent": top, "intent_ranking": [top]}
        rest = {"entities": entities, "out_of_scope": intent is None, "timings": {}}
        return JSONResponse({**found, **rest, "model": "nlu", "version": 3})

    async def generate(self, request: Request) -> Response:
        body = await self.note(request)
        if "day" in (body.get("fields") or {}):
            error = {"message": "no field day", "type": "invalid_request_error"}
            wrong = {**error, "param": "fields.day", "code": "unknown_field"}
            return JSONResponse({"error": wrong}, 422)
        usage = {"prompt_tokens": 4, "completion_tokens": 12}
        found = {"id": "g", "text": FORTUNE, "finish_reason": "stop", "usage": usage}
        return JSONResponse({**found, "model": "generator", "version": 2, "timings": {}})

    async def synthesize(self, request: Request) -> ASGIApp:
        text = (await self.note(request))["text"]
        headers = {"x-audio-sample-rate": str(RATE), "x-model": "tts-en", "x-model-version": "1"}

        done = False

        async def chunks() -> Any:
            nonlocal done
            for letter in text.encode():
                yield bytes([letter, 0])
                await asyncio.sleep(0)
            done = True

        answer = StreamingResponse(chunks(), headers=headers, media_type="audio/pcm")

        async def speech(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await answer(scope, receive, send)
            finally:
                self.unfinished += not done

        return speech

    def apps(self) -> dict[str, ASGIApp]:
        return {
            "stt": _app("/v1/transcribe", self.transcribe),
            "nlu": _app("/v1/understand", self.understand),
            "generator": _app("/v1/generate", self.generate),
            "tts": _app("/v1/synthesize", self.synthesize),
        }


def siblings(script: Script, down: Iterable[str] = (), slow: Iterable[str] = ()) -> Siblings:
    """Clients of the small services; some of them fail, some take a minute."""
    apps = script.apps() | dict.fromkeys(down, _down) | dict.fromkeys(slow, _slow)
    urls = {name: f"http://{name}" for name in apps}
    return connect(urls, "key", {name: StreamingTransport(app) for name, app in apps.items()})


def _app(path: str, verb: Callable[[Request], Any]) -> ASGIApp:
    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": True})

    return Starlette(routes=[Route(path, verb, methods=["POST"]), Route("/readyz", ready)])


async def _down(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("down")


async def _slow(scope: Any, receive: Any, send: Any) -> None:
    await asyncio.sleep(60)
