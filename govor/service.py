"""The service factory: what every service has besides its verb.

Health, readiness, version, metrics, request ids, keys, limits, errors of one shape, and
documentation that needs no network. The parts of a service (its models, its workers) start with the
app and stop with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from prometheus_fastapi_instrumentator import Instrumentator
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.staticfiles import StaticFiles

from govor import openapi
from govor.config import Settings
from govor.door import Door, Frame, headers_of
from govor.errors import (
    Forbidden,
    GovorError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Unprocessable,
    from_body,
)
from govor.keys import ADMIN, SPEAK, Keyring, KeyTable, Principal, secret
from govor.metrics import Metrics

log = logging.getLogger(__name__)

PUBLIC = ("/healthz", "/readyz", "/version", "/docs", "/docs/", "/openapi.json")
"""Paths that need no key in any service."""


# Swagger's page starts itself by a script inline.
_DOCUMENTS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'"
)


class Part(Protocol):
    """What a service is made of: it starts, it stops, it says whether it can work."""

    def start(self) -> Coroutine[Any, Any, None]: ...

    async def stop(self) -> None: ...

    def ready(self) -> tuple[bool, str]: ...


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_service(
    name: str,
    settings: Settings,
    *,
    description: str,
    parts: Mapping[str, Part],
    lifespan: Lifespan | None = None,
    key_table: KeyTable | None = None,
    public: Sequence[str] = (),
    document: Path | None = None,
) -> FastAPI:
    """A FastAPI app with everything but its own routes.

    `parts` start together, `/readyz` names them; `lifespan` is entered before them. `key_table`
    reads the keys of the database, `public` are more paths without a key, `document` is an OpenAPI
    document to serve instead of the app's own. `app.state` holds `settings`, `metrics`, `keyring`,
    `subject_secret`, `verbs`, and `limiter` (none: the public door sets one).
    """
    keyring = Keyring(settings, key_table)
    parts = {**parts, "keys": keyring}

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app) if lifespan else _nothing(), _running(parts):
            yield
            app.state.draining = True

    app = FastAPI(
        title=f"Govor {name}",
        description=description,
        version=version("govor"),
        lifespan=run,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=openapi.ERRORS,
    )
    app.state.service = name
    app.state.settings = settings
    app.state.metrics = Metrics(name)
    app.state.keyring = keyring
    app.state.subject_secret = secret(settings.subject_secret_path)
    app.state.limiter = None
    app.state.verbs = {}
    app.state.draining = False
    Instrumentator().add(app.state.metrics.observe_info).instrument(app)
    app.user_middleware = [*_layers(app, settings, public), *app.user_middleware]
    for kind in (GovorError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    _add_health(app, parts)
    _add_documents(app, document)
    return app


def requires(scope: str) -> Callable[[Request], Principal]:
    """A FastAPI dependency: the caller, who has this scope (`Forbidden`)."""

    def principal(request: Request) -> Principal:
        caller: Principal = request.state.principal
        if scope not in caller.scopes:
            raise Forbidden(f"the key lacks the scope {scope}")
        return caller

    return principal


speaker, administrator = requires(SPEAK), requires(ADMIN)


def _layers(app: FastAPI, settings: Settings, public: Sequence[str]) -> list[Middleware]:
    layers = [Middleware(Frame)]
    if settings.cors_origins:
        layers.append(
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "DELETE"],
                allow_headers=["*"],
                expose_headers=["X-Request-ID", "X-Model", "X-Model-Version", "Retry-After"],
            )
        )
    state = app.state
    layers.append(Middleware(Door, state=state, verbs=state.verbs, public=(*PUBLIC, *public)))
    return layers


def _add_health(app: FastAPI, parts: Mapping[str, Part]) -> None:
    @app.get("/healthz", summary="Whether the process lives", tags=["health"])
    async def healthz() -> dict[str, str]:
        """Answers as long as the event loop turns."""
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether all parts can work", tags=["health"])
    async def readyz() -> JSONResponse:
        """200 when every part is loaded and warm, else 503; the body names each part."""
        states = {part: one.ready() for part, one in parts.items()}
        ready = all(ok for ok, _ in states.values()) and not app.state.draining
        named = {part: {"ready": ok, "detail": detail} for part, (ok, detail) in states.items()}
        return JSONResponse({"ready": ready, "parts": named}, 200 if ready else 503)

    @app.get("/version", summary="Which code answers", tags=["health"])
    async def version_of_code() -> dict[str, str]:
        """The service and the version of its code; models have versions of their own."""
        return {"name": "govor", "service": app.state.service, "version": app.version}


def _add_documents(app: FastAPI, document: Path | None) -> None:
    app.openapi = lambda: openapi.document_of(app)  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi_json() -> Any:
        return FileResponse(document) if document else JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title=app.title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon-32x32.png",
        )
        page.headers["content-security-policy"] = _DOCUMENTS_POLICY
        return page

    app.mount("/docs/", StaticFiles(directory=str(files("fastapi_swagger") / "resources")))


@asynccontextmanager
async def _running(parts: Mapping[str, Part]) -> AsyncIterator[None]:
    """Starts all parts together; stops, in the other order, those that started. What a `stop`
    raises is logged."""
    tasks = {name: asyncio.create_task(part.start()) for name, part in parts.items()}
    try:
        await asyncio.gather(*tasks.values())
        yield
    finally:
        for task in tasks.values():
            task.cancel()
        ends = dict(zip(tasks, await _ends(tasks.values()), strict=True))
        for name, part in reversed(list(parts.items())):
            if ends[name] is None:
                try:
                    await part.stop()
                except Exception:
                    log.exception("part %s did not stop well", name)


async def _ends(tasks: Iterable[asyncio.Task[None]]) -> list[BaseException | None]:
    return await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


async def _answer(request: Request, error: Exception) -> JSONResponse:
    """An error of a FastAPI route, or the framework's own, in our shape."""
    match error:
        case HTTPException():
            error = _of_framework(request, error)
        case RequestValidationError():
            error = _of_validation(error)
    assert isinstance(error, GovorError)
    return JSONResponse(error.body(), error.status, headers_of(error))


def _of_framework(request: Request, error: HTTPException) -> GovorError:
    if error.status_code == 404:
        return NotFound(f"there is no {request.url.path[:100]}", code="route_not_found")
    if error.status_code == 405:
        wrong = MethodNotAllowed(f"{request.url.path} does not take {request.method}")
        allowed = (error.headers or {}).get("Allow", "")
        wrong.allow = tuple(sorted(method.strip() for method in allowed.split(",")))
        return wrong
    return from_body(error.status_code, {"error": {"message": error.detail}})


def _of_validation(error: RequestValidationError) -> GovorError:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return InvalidRequest("the body is not JSON", code="invalid_json")
    place = [str(part) for part in first["loc"][1:]]
    message = first["msg"].removeprefix("Value error, ")
    return Unprocessable(message, param=".".join(place)[:100] or None)
