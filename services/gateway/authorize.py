"""What nginx asks before it lets anybody to Grafana and Prometheus: is this an administrator?

`GET /internal/authorize`, for nginx's `auth_request`; nginx lets nobody from outside reach it.
"""

from __future__ import annotations

import base64
import binascii

from fastapi import FastAPI, Request
from starlette.datastructures import Headers
from starlette.responses import Response

from govor.errors import Forbidden, NotFound
from govor.keys import ADMIN, Keyring, given_key

PUBLIC = ("/internal/authorize",)
"""It judges keys itself: those of a browser's password prompt, too, which no other route takes."""

_ASK = {"www-authenticate": 'Basic realm="Govor: the admin key is the password", charset="UTF-8"'}


def add_routes(app: FastAPI) -> None:
    keyring: Keyring = app.state.keyring

    @app.get("/internal/authorize", include_in_schema=False)
    async def authorize(request: Request) -> Response:
        """204 with a key that has the scope admin, 403 with another, else 401: a browser asks.

        Another key in a browser's prompt is 401, too, or it would never ask again. In the embedded
        mode, whose door is this process, there is no such path.
        """
        if app.state.limiter is not None:
            raise NotFound("there is no /internal/authorize", code="route_not_found")
        password = _password(request.headers)
        key = given_key(request.headers, {}) if password is None else password
        caller = keyring.find(key) if key else None
        if caller is not None and ADMIN in caller.scopes:
            return Response(status_code=204)
        if caller is not None and password is None:
            raise Forbidden(f"the key lacks the scope {ADMIN}")
        return Response(status_code=401, headers=_ASK)


def _password(headers: Headers) -> str | None:
    """The password of `Authorization: Basic`; empty for one that cannot be read."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
