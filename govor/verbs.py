"""A verb: a raw ASGI route with what every inference route needs, and the call it hands on.

The route style is the biggest lever on a small model's throughput (a FastAPI route costs some
90 us more), so verbs are answered in `govor.door` before FastAPI's own layers; their entries in
the OpenAPI document are written by `govor.openapi`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from govor.bodies import Body, Disconnected, Fields, Upload, parse_fields, parse_json
from govor.config import Settings
from govor.door import refuse
from govor.errors import (
    DeadlineExceeded,
    Forbidden,
    GovorError,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    Overloaded,
    RateLimited,
    RequestTimeout,
    UnsupportedMedia,
)
from govor.keys import ADMIN, SPEAK, Principal, subject_of
from govor.routes import PROMISED_SECONDS

log = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

# Longest deadline a caller may ask for, in seconds.
MAX_TIMEOUT_SECONDS = 600.0
# A reader that takes no byte for so long is gone.
STALL_SECONDS = 30.0
# nginx's number for a caller who left before the answer.
LEFT = 499


@dataclass(frozen=True)
class Verb:
    """One route: `POST` on a fixed path. What the OpenAPI document says of it stands here too.

    `request` is the JSON body; `media` are further bodies (media type -> JSON schema); `answers`
    names the 200 answer by media type; `examples` are the request's by media type.
    """

    app: FastAPI
    path: str
    handler: Callable[[Call], Awaitable[None]]
    model: str
    scope: str = SPEAK
    status: int = 200
    summary: str = ""
    request: type[BaseModel] | None = None
    media: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    examples: Mapping[str, Any] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        since = time.monotonic()
        call = Call(self, scope, receive, send)
        outcome = "ok"
        try:
            call.admit(scope["method"], since)
            await self.handler(call)
            await call.finish()
        except Disconnected:
            outcome = "cancelled"
        except asyncio.CancelledError:
            outcome = "cancelled"
            if not call.gone:
                raise
        except GovorError as error:
            outcome = outcome_of(error)
            await call.fail(error)
        except Exception:
            outcome = "error"
            log.exception("%s failed", self.path)
            await call.fail(InternalError("something went wrong here; the log knows more"))
        finally:
            await call.close()
            seconds = time.monotonic() - since
            metrics = self.app.state.metrics
            metrics.observe_request(call.model, outcome, seconds)
            status = f"{call.status // 100}xx"
            metrics.observe_route(scope["method"], self.path, status, seconds)


def verb(
    app: FastAPI,
    path: str,
    handler: Callable[[Call], Awaitable[None]],
    *,
    model: str | None = None,
    **described: Any,
) -> Verb:
    """Adds a verb to a service. `model` is the metrics' label until the handler sets `call.model`;
    the rest are the fields of `Verb`."""
    added = Verb(app, path, handler, model or app.state.service, **described)
    app.state.verbs[path] = added
    app.state.metrics.begin_route("POST", path)
    app.state.metrics.begin_model(added.model)
    app.openapi_schema = None
    return added


class Call:
    """One request to a verb: what came with it, and the ways to answer."""

    def __init__(self, route: Verb, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        self._body = Body(scope, receive)
        self.app = route.app
        self.settings: Settings = route.app.state.settings
        self.request_id: str = state["request_id"]
        self.headers: Mapping[str, str] = state["headers"]
        self.principal: Principal = state["principal"]
        self.content_type = self._body.media
        self.user: str | None = None
        self.deadline = 0.0
        self.hurried = False  # the caller gives less time than the service promises to need
        self.model = route.model
        self.gone = False
        self.status = LEFT  # as the metrics count it
        self._route = route
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started: str | None = None
        self._streaming = False
        self._finished = False
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None

    # What came

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self._scope["query_string"].decode("latin-1")))

    def admit(self, method: str, since: float) -> None:
        """Reads what every verb reads of the head. Raises `MethodNotAllowed`, `Forbidden`,
        `InvalidRequest`."""
        if method != "POST":
            wrong = MethodNotAllowed(f"{self._route.path} takes POST")
            wrong.allow = ("POST",)
            raise wrong
        if self._route.scope not in self.principal.scopes:
            raise Forbidden(f"the key lacks the scope {self._route.scope}")
        seconds, usual = self._timeout(), self.settings.default_timeout_seconds
        self.deadline = since + seconds
        self.hurried = seconds < min(usual, PROMISED_SECONDS.get(self.app.state.service, usual))
        if (user := self.headers.get("x-user-id")) is not None:
            self.speaker(user)

    def speaker(self, user: str) -> str:
        """Notes for whom the caller speaks, by header or body; gives it back."""
        if not 0 < len(user) <= 256:
            raise InvalidRequest("a user id has 1 to 256 characters", param="user")
        self.user = user
        subject = subject_of(user, self.app.state.subject_secret)
        self.principal = replace(self.principal, subject=subject)
        return user

    def admin_only(self, param: str) -> None:
        """Raises `Forbidden` for a parameter that only administrators may give."""
        if ADMIN not in self.principal.scopes:
            raise Forbidden(f"{param} needs a key with the scope admin", param=param)

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises `PayloadTooLarge`, `RequestTimeout`."""
        return await self._body.read(limit, self.deadline)

    async def parse(self, model: type[M], limit: int | None = None) -> M:
        """The JSON body as a model: 400 `invalid_json`, 415, or 422 with the field in `param`."""
        if self.content_type != "application/json":
            raise UnsupportedMedia("send JSON with Content-Type: application/json")
        return parse_json(model, await self.body(limit or self.settings.max_json_bytes))

    async def form(self, limit: int) -> tuple[Fields, dict[str, Upload]]:
        """The fields and files of a form. A repeated field, or one named `x[]`, is a list."""
        return await self._body.form(limit, self.deadline)

    def options(self, model: type[M], given: Mapping[str, Any]) -> M:
        """Form fields or query parameters as a model; one value does for a list."""
        return parse_fields(model, given)

    def _timeout(self) -> float:
        given = self.headers.get("x-request-timeout")
        if given is None:
            return self.settings.default_timeout_seconds
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise InvalidRequest(
                "X-Request-Timeout is a number of seconds above 0", param="X-Request-Timeout"
            )
        return min(seconds, MAX_TIMEOUT_SECONDS)

    # Work that ends when the caller goes

    async def until_disconnect(self, work: Awaitable[T]) -> T:
        """The result of `work`, which is cancelled when the caller goes away (`Disconnected`)."""
        self._watch()
        try:
            return await work
        except asyncio.CancelledError:
            if self.gone and self._task is not None and not self._task.uncancel():
                raise Disconnected from None
            raise
        finally:
            if not self._streaming:
                self._unwatch()

    def _watch(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._notice(), name="watch for disconnect")

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _notice(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()

    # Answers

    def wants_events(self) -> bool:
        return "text/event-stream" in self.headers.get("accept", "")

    async def send_json(
        self,
        content: BaseModel | Mapping[str, Any],
        status: int = 200,
        headers: Mapping[str, str] = {},
    ) -> None:
        await self.send_bytes(_json(content), "application/json", status, headers)

    async def send_bytes(
        self, body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] = {}
    ) -> None:
        await self._head(content_type, status, {"content-length": str(len(body)), **headers})
        self._finished = True
        await self._send({"type": "http.response.body", "body": body})

    async def start(
        self, content_type: str, status: int = 200, headers: Mapping[str, str] = {}
    ) -> None:
        """Begins a streamed answer; from here on a disconnect cancels the handler."""
        unbuffered = {"cache-control": "no-store", "x-accel-buffering": "no"}
        self._streaming = True
        await self._head(content_type, status, {**unbuffered, **headers})
        self._watch()

    async def write(self, chunk: bytes) -> None:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            self.gone = True
            raise Disconnected from None

    async def event(self, name: str, data: BaseModel | Mapping[str, Any]) -> None:
        """Sends one server-sent event, beginning the stream if need be."""
        if self._started is None:
            await self.start("text/event-stream")
        await self.write(b"event: %b\ndata: %b\n\n" % (name.encode(), _json(data)))

    async def finish(self) -> None:
        """Ends the answer; called for a handler that does not."""
        if self._started is None:
            raise RuntimeError(f"{self._route.path} answered nothing")
        if not self._finished:
            self._finished = True
            self._unwatch()  # a server tells of the end of an answer as of a disconnect
            await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: GovorError) -> None:
        """Answers with an error: as an event in a stream of events; other streams are cut, so that
        nobody takes half an answer for a whole one."""
        # Of a stream that began as 200, too: the metrics' truth.
        late = isinstance(error, DeadlineExceeded)
        self.status = LEFT if late and self.hurried else error.status
        if self._started is None:
            self._started, self._finished = "application/json", True
            await refuse(error, self._receive if self._body.pending else None, self._send)
        elif self._started == "text/event-stream" and not self._finished:
            await self.event("error", error.body())
            await self.finish()

    async def close(self) -> None:
        """Ends the watch; takes a cancellation that came too late to be noticed."""
        self._unwatch()
        if self.gone and self._task is not None and self._task.cancelling():
            while self._task.uncancel():
                pass
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

    async def _head(self, content_type: str, status: int, headers: Mapping[str, str]) -> None:
        self._started = content_type
        self.status = status
        raw = [(b"content-type", content_type.encode())]
        raw += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


def outcome_of(error: GovorError) -> str:
    """The metrics' outcome of a request that ended with this error."""
    match error:
        case Overloaded() | RateLimited():
            return "shed"
        case DeadlineExceeded() | RequestTimeout():
            return "deadline"
        case _:
            return "invalid" if error.status < 500 else "error"


def _json(content: BaseModel | Mapping[str, Any]) -> bytes:
    if isinstance(content, BaseModel):
        return content.model_dump_json().encode()
    return to_json(content, inf_nan_mode="null")
