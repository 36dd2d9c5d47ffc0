"""All five services in one process, on one port.

A plain ASGI dispatcher over `govor.routes`; the gateway calls its siblings in process. The one
module that knows several services.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from govor.clients import Siblings, connect
from govor.config import Settings
from govor.database import migrate
from govor.keys import secret
from govor.limits import RateLimit
from govor.routes import SERVICES, service_of
from govor.transport import StreamingTransport


class Embedded:
    """The public door of all services: one ASGI app that dispatches by path."""

    def __init__(self, apps: Mapping[str, FastAPI]) -> None:
        self.apps = apps

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.apps[service_of(scope.get("path", "/"))](scope, receive, send)


def create_apps(settings: Settings) -> dict[str, FastAPI]:
    """The five apps, the gateway wired to the others, one limit of requests for all.

    Brings the database to the newest revision first; raises `ConfigurationError` if it cannot.
    """
    migrate(settings.database)
    verbs = [name for name in SERVICES if name != "gateway"]
    apps = {name: _module(name).create_app() for name in verbs}
    apps["gateway"] = _module("gateway").create_app(siblings=siblings_of(apps, settings))
    limiter = RateLimit(settings.rate_limit_per_minute)
    for app in apps.values():
        app.state.limiter = limiter
    return apps


def siblings_of(apps: Mapping[str, FastAPI], settings: Settings) -> Siblings:
    """Clients that call these apps in this process."""
    key = secret(settings.internal_key_path).decode()
    urls = {name: f"http://{name}" for name in apps}
    return connect(urls, key, {name: StreamingTransport(app) for name, app in apps.items()})


def _module(name: str) -> Any:
    return importlib.import_module(f"services.{name}.main")
