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
        headers, keyring = scope["state"]["headers"], self._state.keyring
        address = _address(scope, headers)
        key = given_key(headers, dict(parse_qsl(scope["query_string"].decode("latin-1"))))
        if key is None and keyring.open:
            found = OPEN if _from_here(address, headers.get("host")) else None
        else:
            found = keyring.find(key) if key else None
        if self._state.limiter is not None and not (found and found.internal):
            named = found if found is not OPEN else None
            self._state.limiter.take(named.name if named else f"address {address}")
        if found is None:
            raise _unknown(key, keyring.open)
        return found


def _address(scope: Scope, headers: Mapping[str, str]) -> str | None:
    """The caller's, by the word of the proxies on this machine if it came through them: they name
    whom each heard, the last one last. `None` is this process."""
    address: str | None = scope["client"][0] if scope.get("client") else None
    named = headers.get("x-forwarded-for")
    if named and (address is None or is_loopback(address)):
        heard = [each.strip() for each in named.split(",")]
        return next((each for each in reversed(heard) if not is_loopback(each)), address)
    return address


def _from_here(address: str | None, host: str | None) -> bool:
    """Whether a request comes from this machine and was meant for it: a page of another site that
    lets its name point here (DNS rebinding) sends that name as `Host`."""
    name = (host or "localhost").lower()
    name = name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
    return (address is None or is_loopback(address)) and is_loopback(name)


def _unknown(key: str | None, unlocked: bool) -> Unauthenticated:
    if key:
        return Unauthenticated("the key is not known")
    if unlocked:
        return Unauthenticated(
            "no key is configured: only this machine may call, by its own name",
            code="key_required",
        )
    return Unauthenticated("a key is needed: Authorization: Bearer <key>", code="key_required")


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
