"""One typed client for each service: the gateway's way to its siblings.

A sibling's error comes back as the error it raised; trouble on the way is `Unavailable` with the
code `<service>_unavailable`, lateness is `DeadlineExceeded`, no free connection `Overloaded`.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from govor.config import Consent
from govor.errors import DeadlineExceeded, GovorError, Overloaded, Unavailable, from_body
from govor.predictions import CONSENT_HEADER, TURN_HEADER
from govor.schemas.generation import Delta, GenerateRequest, Generation
from govor.schemas.nlu import Understanding, UnderstandRequest
from govor.schemas.stt import TranscribeOptions, Transcript
from govor.schemas.tts import SynthesizeRequest

M = TypeVar("M", bound=BaseModel)

SERVED = re.compile(r"(\S+) version (\d+)")
"""A model and its version, as `/readyz` names what serves."""

# httpx spends 1.35 ms a call with a pool of 8 connections and 1.84 ms with 256.
_POOL = httpx.Limits(max_connections=64, max_keepalive_connections=8, keepalive_expiry=30)
_CONNECT_SECONDS = 1.0
# A sibling that refused this often in a row is left alone for so many seconds.
_FAILURES, _OPEN_SECONDS = 5, 2.0
# Of a sample rate in Hz: 8000 to 192000.
_RATE_FIGURES = range(4, 7)
# At most one retry in so many calls, after some pause (seconds, drawn up to it).
_CALLS_A_RETRY, _PAUSE_SECONDS = 10, 0.05


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is passed on with a call; `timeout` in seconds is what is left of the deadline."""

    request_id: str
    timeout: float
    user: str | None = None
    traceparent: str | None = None
    consent: Consent | None = None
    turn_id: str | None = None


class Breaker:
    """Open after `_FAILURES` connection failures in a row; then lets one call in `_OPEN_SECONDS`
    try again."""

    def __init__(self) -> None:
        self._failures = 0
        self._retry_at = 0.0

    def allows(self) -> bool:
        now = time.monotonic()
        if self._failures < _FAILURES:
            return True
        if now < self._retry_at:
            return False
        self._retry_at = now + _OPEN_SECONDS
        return True

    def record(self, reached: bool) -> None:
        self._failures = 0 if reached else self._failures + 1
        if self._failures == _FAILURES:
            self._retry_at = time.monotonic() + _OPEN_SECONDS


class Sibling:
    """One service as seen from another: connections, breaker, translation of errors."""

    def __init__(
        self, name: str, url: str, key: str, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.name = name
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            limits=_POOL,
            transport=transport,
            trust_env=False,
        )
        self._breaker = Breaker()
        self._retries = 1.0

    async def aclose(self) -> None:
        await self._http.aclose()

    async def ready(self) -> tuple[bool, str]:
        """Whether the sibling says that it can work, within a second, and with which versions."""
        try:
            async with asyncio.timeout(1.0):
                answer = await self._http.get("/readyz")
        except (httpx.HTTPError, TimeoutError):
            return False, "not reached"
        if answer.status_code != 200:
            return False, "not ready"
        parts = answer.json().get("parts", {})
        named = [f"{name} {part['detail']}" for name, part in parts.items()]
        return True, ", ".join(filter(SERVED.fullmatch, named)) or "ready"

    @asynccontextmanager
    async def _open(
        self, path: str, call: Outgoing, **content: Any
    ) -> AsyncIterator[httpx.Response]:
        """A streamed answer of status 200, whose head and every further read come within the call's
        timeout. (No one timeout spans the body: it would cancel whoever reads, wherever it is.)"""
        if not self._breaker.allows():
            raise self._unavailable("is not reached; it is tried again soon")
        reached, told = False, True
        try:
            headers = _headers(call, content.pop("headers", {}))
            limits = httpx.Timeout(call.timeout, connect=_CONNECT_SECONDS, pool=_CONNECT_SECONDS)
            request = self._http.build_request(
                "POST", path, headers=headers, timeout=limits, **content
            )
            async with asyncio.timeout(call.timeout):
                answer = await self._http.send(request, stream=True)
            reached = True
            try:
                if answer.status_code != 200:
                    raise await _error_of(answer)
                yield answer
            finally:
                await answer.aclose()
        except (TimeoutError, httpx.ReadTimeout) as error:
            reached = True
            raise DeadlineExceeded(f"{self.name} did not answer in time") from error
        except httpx.PoolTimeout as error:
            told = False  # the calls under way say how the sibling is
            raise Overloaded(f"all connections to {self.name} are in use") from error
        except httpx.TransportError as error:
            raise self._unavailable("is not reached" if not reached else "broke off") from error
        except asyncio.CancelledError:
            told = reached  # who leaves before the head has learnt nothing of the sibling
            raise
        finally:
            if told:
                self._breaker.record(reached)

    async def _call(self, path: str, call: Outgoing, model: type[M], **content: Any) -> M:
        """The whole answer within the call's timeout."""
        until = time.monotonic() + call.timeout
        async with self._open(path, call, **content) as answer:
            async with asyncio.timeout(until - time.monotonic()):
                body = await answer.aread()
            return self._read(model, body)

    async def _call_again(self, path: str, call: Outgoing, model: type[M], **content: Any) -> M:
        """Like `_call`, tried once more when the sibling was not reached, as the budget allows."""
        until = time.monotonic() + call.timeout
        self._retries = min(1.0, self._retries + 1 / _CALLS_A_RETRY)
        try:
            return await self._call(path, call, model, **content)
        except Unavailable:
            if self._retries < 1 or not self._breaker.allows():
                raise
        self._retries -= 1
        await asyncio.sleep(random.uniform(0, _PAUSE_SECONDS))
        left = replace(call, timeout=until - time.monotonic())
        return await self._call(path, left, model, **content)

    def _read(self, model: type[M], data: str | bytes) -> M:
        try:
            return model.model_validate_json(data)
        except ValidationError:  # it quotes what was answered: what somebody said
            raise self._unavailable("answered something else") from None

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"{self.name} {what}", code=f"{self.name}_unavailable")


class SttClient(Sibling):
    async def transcribe(
        self, audio: bytes, content_type: str, options: TranscribeOptions, call: Outgoing
    ) -> Transcript:
        return await self._call(
            "/v1/transcribe",
            call,
            Transcript,
            content=audio,
            headers={"content-type": content_type},
            params=options.model_dump(exclude_defaults=True),
        )


class NluClient(Sibling):
    async def understand(self, request: UnderstandRequest, call: Outgoing) -> Understanding:
        return await self._call_again("/v1/understand", call, Understanding, **_json(request))


class GeneratorClient(Sibling):
    async def generate(self, request: GenerateRequest, call: Outgoing) -> Generation:
        request = request.model_copy(update={"stream": False})
        return await self._call("/v1/generate", call, Generation, **_json(request))

    async def stream(
        self, request: GenerateRequest, call: Outgoing
    ) -> AsyncIterator[Delta | Generation]:
        """The deltas as they come, then the whole. Close the iterator to stop the generation."""
        request = request.model_copy(update={"stream": True})
        async with self._open("/v1/generate", call, **_json(request)) as answer:
            async for name, data in events(answer):
                match name:
                    case "delta":
                        yield self._read(Delta, data)
                    case "done":
                        yield self._read(Generation, data)
                        return
                    case "error":
                        raise _error_in(data)
        raise self._unavailable("broke off")


@dataclass(frozen=True)
class Speech:
    """Audio on its way: what it is, and its bytes as they come."""

    content_type: str
    sample_rate: int
    model: str
    version: str
    headers: Mapping[str, str]
    _answer: httpx.Response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._answer.aiter_raw()


class TtsClient(Sibling):
    @asynccontextmanager
    async def synthesize(self, request: SynthesizeRequest, call: Outgoing) -> AsyncIterator[Speech]:
        async with self._open("/v1/synthesize", call, **_json(request)) as answer:
            headers = answer.headers
            rate = headers.get("x-audio-sample-rate", "")
            if not rate.isdecimal() or len(rate) not in _RATE_FIGURES:
                raise self._unavailable("answered something else")
            yield Speech(
                headers.get("content-type", ""),
                int(rate),
                headers.get("x-model", ""),
                headers.get("x-model-version", ""),
                headers,
                answer,
            )


@dataclass(frozen=True)
class Siblings:
    """The four services that the gateway calls."""

    stt: SttClient
    nlu: NluClient
    generator: GeneratorClient
    tts: TtsClient

    @property
    def all(self) -> tuple[Sibling, ...]:
        return self.stt, self.nlu, self.generator, self.tts

    async def aclose(self) -> None:
        await asyncio.gather(*(sibling.aclose() for sibling in self.all))


def connect(
    urls: Mapping[str, str], key: str, transports: Mapping[str, httpx.AsyncBaseTransport] = {}
) -> Siblings:
    """Clients of the services at `urls`, by name; in this process where there is a transport."""

    def of(name: str) -> tuple[str, str, str, httpx.AsyncBaseTransport | None]:
        return name, urls[name], key, transports.get(name)

    return Siblings(
        SttClient(*of("stt")),
        NluClient(*of("nlu")),
        GeneratorClient(*of("generator")),
        TtsClient(*of("tts")),
    )


async def events(answer: httpx.Response) -> AsyncIterator[tuple[str, str]]:
    """The server-sent events of an answer: name and data."""
    name, data = "message", list[str]()
    async for line in _lines(answer):
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """Lines as our services end them. httpx's end at U+2028 and others too, which JSON leaves as
    they are."""
    rest = b""
    async for chunk in answer.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


def _headers(call: Outgoing, more: Mapping[str, str]) -> dict[str, str]:
    headers = {
        "x-request-id": call.request_id,
        "x-request-timeout": f"{max(call.timeout, 0.001):.3f}",
        **more,
    }
    if call.user is not None:
        headers["x-user-id"] = call.user
    if call.traceparent is not None:
        headers["traceparent"] = call.traceparent
    if call.consent is not None:
        headers[CONSENT_HEADER] = call.consent
    if call.turn_id is not None:
        headers[TURN_HEADER] = call.turn_id
    return headers


def _json(request: BaseModel) -> dict[str, Any]:
    return {
        "content": request.model_dump_json(exclude_unset=True),
        "headers": {"content-type": "application/json"},
    }


async def _error_of(answer: httpx.Response) -> GovorError:
    data = await answer.aread()
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    retry_after = answer.headers.get("retry-after", "")
    seconds = float(retry_after) if retry_after.isdecimal() else None
    return from_body(answer.status_code, body, seconds)


def _error_in(data: str) -> GovorError:
    """The error of an SSE `error` event, which has no status: told by its type."""
    try:
        body = json.loads(data)
        status = _STATUS_OF.get(body["error"]["type"], 500)
    except (ValueError, LookupError, TypeError):
        body, status = None, 500
    return from_body(status, body)


_STATUS_OF = {"overloaded_error": 503, "timeout_error": 504, "invalid_request_error": 400}
