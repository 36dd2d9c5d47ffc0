"""Runs apps on a port until told to stop: one service alone, or all behind one door.

`run` is the whole server of a process; under gunicorn `govor.workers` puts the same parts together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, cast

import uvicorn
import uvloop
from fastapi import FastAPI
from prometheus_client import ProcessCollector
from prometheus_client.registry import Collector
from pydantic_core import to_json
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from govor.config import ConfigurationError, Settings
from govor.door import LINGER_SECONDS
from govor.errors import InvalidRequest
from govor.keys import is_loopback
from govor.metrics import Exporter

log = logging.getLogger(__name__)

# What is in flight at SIGTERM gets this long.
DRAIN_SECONDS = 10


# Request line and headers of one request, together.
HEAD_BYTES = 64 << 10


def run(
    door: ASGIApp, apps: Sequence[FastAPI], settings: Settings, ready: Callable[[str], None]
) -> None:
    """Serves `door`, which leads to `apps`, until SIGINT or SIGTERM; then drains and stops.

    `ready` is told the URL once requests are answered. Raises `ConfigurationError` for a port that
    is taken and for an address that others reach while no key is configured.
    """
    registries = [app.state.metrics.registry for app in apps]
    process = ProcessCollector(registry=None)
    with _bound(settings) as listener, metrics([*registries, process], settings):
        server = Server(uvicorn.Config(door, **OPTIONS), apps, settings)
        server.run_until_signal(listener, ready)


@contextlib.asynccontextmanager
async def lifespans(apps: Sequence[FastAPI]) -> AsyncIterator[None]:
    """Enters the lifespans of all apps together, each in a task of its own, and leaves them so."""
    leave = asyncio.Event()

    async def hold(app: FastAPI, entered: asyncio.Future[None]) -> None:
        async with app.router.lifespan_context(app):
            entered.set_result(None)
            await leave.wait()

    futures = [asyncio.get_running_loop().create_future() for _ in apps]
    tasks = [asyncio.create_task(hold(*pair)) for pair in zip(apps, futures, strict=True)]
    try:
        for task, entered in zip(tasks, futures, strict=True):
            await asyncio.wait({task, entered}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        yield
    finally:
        leave.set()
        for task, entered in zip(tasks, futures, strict=True):
            if not entered.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Joined:
    """A transport on which the head of an answer leaves together with the start of its body.

    uvicorn writes the two apart: twice the system calls here, twice the wake-ups at whoever reads.
    A head whose body is not there yet leaves when the loop turns.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.bare = transport
        self._loop = loop
        self._head: bytes | None = None
        self._flushing: asyncio.Handle

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)

    def write(self, data: bytes) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._flushing.cancel()
            self.bare.writelines((head, data))
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._flushing = self._loop.call_soon(self._flush)
        else:
            self.bare.write(data)

    def write_eof(self) -> None:
        self._flush()
        self.bare.write_eof()

    def close(self) -> None:
        self._flush()
        self.bare.close()

    def _flush(self) -> None:
        if self._head is not None:
            self.write(b"")


class Protocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with our error shape for what is not HTTP, and a bound on a head."""

    _head: int | None = None
    _refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(cast(asyncio.Transport, Joined(transport, self.loop)))

    def handle_websocket_upgrade(self) -> None:
        self.transport = cast(Joined, self.transport).bare
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        super().data_received(data)
        if self._head is not None:
            self._head += len(data)
            if self._head > HEAD_BYTES:
                self.send_400_response(f"the head of the request is over {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = 0

    def on_headers_complete(self) -> None:
        self._head = None
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers, then reads on for a moment: a reset would take the answer from the caller."""
        self._head, self._refused = None, True
        body = to_json(InvalidRequest(msg, code="invalid_http").body())
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {uuid.uuid4().hex}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.write_eof()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


OPTIONS: dict[str, Any] = {
    "http": Protocol,
    "lifespan": "off",
    "proxy_headers": False,  # read where an address matters: govor.door
    "access_log": False,  # costs 30-75 % more a request; metrics and our own log tell
    "log_config": None,
    "server_header": False,
    "timeout_graceful_shutdown": DRAIN_SECONDS,
}
"""How uvicorn is configured, whoever starts it."""


class Server(uvicorn.Server):
    """uvicorn between the lifespans and the signals, which are ours: stopping is no failure."""

    def __init__(self, config: uvicorn.Config, apps: Sequence[FastAPI], settings: Settings) -> None:
        super().__init__(config)
        self._apps = apps
        self._settings = settings
        self._main: asyncio.Task[None] | None = None

    def run_until_signal(self, listener: socket.socket, ready: Callable[[str], None]) -> None:
        with (
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
            contextlib.suppress(asyncio.CancelledError),
        ):
            runner.run(self._serve_until_signal(listener, ready))

    async def _serve_until_signal(
        self, listener: socket.socket, ready: Callable[[str], None]
    ) -> None:
        self._main = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop)
        async with lifespans(self._apps):
            _refuse_open_door(self._apps, self._settings)
            announced = asyncio.create_task(self._announce(listener, ready))
            await self.serve(sockets=[listener])
            announced.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def _stop(self) -> None:
        """The first signal ends the start or begins the drain, one more ends the drain."""
        for app in self._apps:
            app.state.draining = True
        if self.started:
            self.force_exit, self.should_exit = self.should_exit, True
        elif self._main is not None:
            self._main.cancel()

    async def _announce(self, listener: socket.socket, ready: Callable[[str], None]) -> None:
        while not self.started:
            await asyncio.sleep(0.01)
        host, port = listener.getsockname()[:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")


def _refuse_open_door(apps: Sequence[FastAPI], settings: Settings) -> None:
    """A key that nobody knows is none: with the database away at the start, too."""
    configured = all(app.state.keyring.configured for app in apps)
    if not configured and not is_loopback(settings.host):
        raise ConfigurationError(
            f"GOVOR_HOST={settings.host} is reached by others and needs a key: "
            "name a file of keys in GOVOR_KEYS_FILE"
        )


@contextlib.contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, settings.port))
        except OSError as error:
            raise ConfigurationError(
                f"GOVOR_PORT={settings.port}: cannot listen on {settings.host}: {error.strerror}"
            ) from None
        yield listener


@contextlib.contextmanager
def metrics(collectors: Iterable[Collector], settings: Settings) -> Iterator[None]:
    """Answers `/metrics` meanwhile. Raises `ConfigurationError` for a port that is taken."""
    try:
        exporter = Exporter(collectors, settings.metrics_host, settings.metrics_port)
    except OSError as error:
        raise ConfigurationError(
            f"GOVOR_METRICS_PORT={settings.metrics_port}: cannot listen on "
            f"{settings.metrics_host}: {error.strerror}"
        ) from None
    try:
        yield
    finally:
        exporter.close()
