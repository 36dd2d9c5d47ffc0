"""All five services in one process, on one port, and the trainer beside them.

A plain ASGI dispatcher over `govor.routes`; the gateway calls its siblings in process. The one
module that knows several services.
"""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
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

log = logging.getLogger(__name__)

_TRAINER = ("worker", "--beat", "--until-eof", "--name", "embedded")
_STOP_SECONDS = 10.0
_AGAIN_SECONDS = (1.0, 60.0)


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
    # A broker of one's own may have workers elsewhere.
    apps["gateway"].state.trainer = trains(settings) or settings.broker_url is not None
    limiter = RateLimit(settings.rate_limit_per_minute)
    for app in apps.values():
        app.state.limiter = limiter
    return apps


def trains(settings: Settings) -> bool:
    """Whether this process keeps a trainer: what `make trainer` adds is there, and it is wanted."""
    return settings.trainer_embedded and all(find_spec(name) for name in ("celery", "sklearn"))


class Trainer:
    """The trainer as a child process, started again when it has died.

    It ends with this process, however that ends: its standard input does.
    """

    def __init__(self, settings: Settings) -> None:
        port = settings.metrics_port and settings.trainer_metrics_port
        self._env = os.environ | {"GOVOR_METRICS_PORT": str(port)}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="trainer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends it; the job under way goes back into its queue."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()
        if self._process is not None:
            self._thread.join(_STOP_SECONDS)
            if self._thread.is_alive():
                self._process.kill()

    def _keep(self) -> None:
        shortest, longest = _AGAIN_SECONDS
        wait = shortest
        while (process := self._spawn()) is not None:
            since = time.monotonic()
            with process:
                status = process.wait()
            if self._stopping.is_set():
                return
            lived = time.monotonic() - since
            wait = min(2 * wait, longest) if lived < longest else shortest
            log.error("the trainer ended with status %d; again in %g s", status, wait)
            self._stopping.wait(wait)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            # A session of its own: Ctrl-C reaches it through us, in its turn.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "trainer", *_TRAINER],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=self._env,
                start_new_session=True,
            )
            return self._process


def siblings_of(apps: Mapping[str, FastAPI], settings: Settings) -> Siblings:
    """Clients that call these apps in this process."""
    key = secret(settings.internal_key_path).decode()
    urls = {name: f"http://{name}" for name in apps}
    return connect(urls, key, {name: StreamingTransport(app) for name, app in apps.items()})


def _module(name: str) -> Any:
    return importlib.import_module(f"services.{name}.main")
