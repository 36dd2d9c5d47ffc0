"""What every request passes before it reaches a route: its id, its key, its share of the limits.

Plain ASGI: two layers of some microseconds each, where a `BaseHTTPMiddleware` costs 250.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import uuid
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import to_json
from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from govor.errors import GovorError, InternalError, MethodNotAllowed, Unauthenticated
from govor.keys import OPEN, Principal, given_key, is_loopback
from govor.logs import request_id

log = logging.getLogger(__name__)

_SANE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

# A client that writes its whole body before it reads gets this long to see why it was refused.
LINGER_SECONDS = 1.0


class Frame:
    """The outermost layer: takes or makes the request id and echoes it on every answer.

    Leaves `request_id` and `headers` (lower-case names) in the request's state.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        given = headers.get("x-request-id", "")
        identity = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {}).update(request_id=identity, headers=headers)
        echo = (b"x-request-id", identity.encode())

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), echo]
            await send(message)

        token = request_id.set(identity)
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            request_id.reset(token)


class Door:
    """Lets in who has a key, counts them, and turns every error into its one shape.

    A path in `verbs` is answered at once, without FastAPI's own layers and routing; `public` paths
    (those that end in `/` with all below them) need no key.
    """

    def __init__(
        self, app: ASGIApp, state: State, verbs: Mapping[str, ASGIApp], public: Collection[str]
    ) -> None:
        self._app = app
        self._state = state
        self._verbs = verbs
        self._public = frozenset(public)
        self._public_folders = tuple(path for path in public if len(path) > 1 and path[-1] == "/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        path = scope["path"]
        try:
            if path not in self._public and not path.startswith(self._public_folders):
                scope["state"]["principal"] = self._admit(scope)
            if verb := self._verbs.get(path):
                await verb(scope, receive, send)
            else:
                await self._app(scope, receive, watched_send)
        except Exception as error:
            if not isinstance(error, GovorError):
                log.exception("%s %s failed", scope["method"], path)
                error = InternalError("something went wrong here; the log knows more")
            if not started:
                pending = has_body(scope["state"]["headers"])
                await refuse(error, receive if pending else None, send)

    def _admit(self, scope: Scope) -> Principal:
        """Who calls. Raises `Unauthenticated`, `RateLimited`."""
        state, keyring = scope["state"], self._state.keyring
        address = scope["client"][0] if scope.get("client") else None
        query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
        key = given_key(state["headers"], query)
        if keyring.open and key is None:
            if address is not None and not is_loopback(address):
                raise Unauthenticated("no key is configured: only this machine may call")
            found: Principal | None = OPEN
        else:
            found = keyring.find(key) if key else None
        if self._state.limiter is not None and (found is None or not found.internal):
            named = found is not None and found is not OPEN
            self._state.limiter.take(found.name if found and named else f"address {address}")
        if found is None:
            raise Unauthenticated(
                "the key is not known" if key else "a key is needed: Authorization: Bearer <key>",
                code=None if key else "key_required",
            )
        return found


def has_body(headers: Mapping[str, str]) -> bool:
    """Whether a request announces a body."""
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def refuse(error: GovorError, receive: Receive | None, send: Send) -> None:
    """Answers with an error. `receive` is given when a body is still on its way."""
    body = to_json(error.body())
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *((k.encode(), v.encode()) for k, v in headers_of(error).items()),
    ]
    if receive is not None and not await _linger(receive):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def headers_of(error: GovorError) -> dict[str, str]:
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allow)
    return headers


async def _linger(receive: Receive) -> bool:
    """Throws away what is left of a body, for a while; whether that was all of it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            message: dict[str, Any] = {"more_body": True}
            while message.get("more_body"):
                message = dict(await receive())
            return True
    return False
