"""nginx as the stack runs it, on this machine's network, with small services behind it.

The services are real servers on addresses of their own (127.77.0.x); a name server of a few lines
tells nginx where they are, so that a test can add a replica and take one away.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp

from govor.routes import SERVICES
from tests.e2e.conftest import HOME, free_port

IMAGE = "nginx:1.28-alpine"
FOLDER = HOME / "nginx"
INSIDE = ("grafana", "prometheus")


class Names:
    """A name server: answers for `<name>.test` with the addresses in `of[name]`."""

    def __init__(self) -> None:
        self.of: dict[str, list[str]] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._answer(question), asker)

    def _answer(self, question: bytes) -> bytes:
        name = question[13 : 13 + question[12]].decode()
        addresses = self.of.get(name, [])
        end = question.index(0, 12) + 5
        head = question[:2] + (b"\x81\x80" if addresses else b"\x81\x83")
        counts = b"\0\1" + len(addresses).to_bytes(2, "big") + bytes(4)
        record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4"  # that name, A, IN, one second, four bytes
        answers = b"".join(record + socket.inet_aton(address) for address in addresses)
        return head + counts + question[12:end] + answers


@contextmanager
def serving(app: ASGIApp, host: str, port: int) -> Iterator[uvicorn.Server]:
    """The app on an address, in a thread of its own, until the end of the block."""
    config = uvicorn.Config(
        app, host, port, log_config=None, lifespan="off", ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.005)
        yield server
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


@contextmanager
def breaking_off(host: str, port: int) -> Iterator[list[bytes]]:
    """A replica that dies over each request: reads its first line, which it gives, and hangs up."""
    asked: list[bytes] = []
    loop = asyncio.new_event_loop()

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    server = loop.run_until_complete(asyncio.start_server(hang_up, host, port))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asked
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass
class Door:
    """A running nginx. `port` is public, `inner` is where its own state is."""

    container: str
    port: int
    inner: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> httpx.Client:
        options = {"verify": False, "trust_env": False, "timeout": 30} | options
        return httpx.Client(base_url=self.url, **options)

    def log(self) -> list[dict[str, Any]]:
        """The access log so far; it is written once a second."""
        time.sleep(1.3)
        lines = self.output().splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"time"')]

    def output(self) -> str:
        """All that the container wrote."""
        done = subprocess.run(
            ["docker", "logs", self.container],
            check=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.stdout


def command(
    *words: str,
    tls: Path = FOLDER / "tls",
    templates: Path = FOLDER / "templates",
    options: Sequence[str] = (),
) -> list[str]:
    """`docker run` with what `compose.yaml` gives to nginx."""
    mounts = {
        FOLDER / "nginx.conf": "/etc/nginx/nginx.conf",
        templates: "/etc/nginx/templates",
        FOLDER / "05-govor.envsh": "/docker-entrypoint.d/05-govor.envsh",
        tls: "/etc/nginx/tls",
    }
    volumes = [f"--volume={source}:{target}:ro" for source, target in mounts.items()]
    hardened = ["--read-only", "--tmpfs=/tmp:uid=101,mode=0700", "--user=101:101"]
    rights = ["--cap-drop=ALL", "--security-opt=no-new-privileges"]
    return ["docker", "run", *hardened, *rights, *volumes, *options, IMAGE, *words]


@contextmanager
def nginx(
    servers: Mapping[str, str],
    resolver: str = "127.0.0.1",
    *,
    tls: Path = FOLDER / "tls",
    templates: Path = FOLDER / "templates",
    **settings: object,
) -> Iterator[Door]:
    """nginx in front of `servers` (service -> host:port), with `settings` in its environment."""
    port, inner = free_port(), free_port()
    environment = {
        "GOVOR_PORT": port,
        "GOVOR_METRICS_PORT": inner,
        "GOVOR_RESOLVER": resolver,
        "GOVOR_RATE_LIMIT_PER_MINUTE": 0,
        **{f"GOVOR_{name.upper()}_SERVER": server for name, server in servers.items()},
        **settings,
    }
    options = ["--detach", "--network=host"]
    options += [f"--env={name}={value}" for name, value in environment.items()]
    started = command(tls=tls, templates=templates, options=options)
    container = subprocess.run(started, check=True, text=True, stdout=subprocess.PIPE).stdout
    door = Door(container.strip(), port, inner, "http" if tls == FOLDER / "tls" else "https")
    try:
        _await_health(door)
        yield door
    finally:
        subprocess.run(["docker", "rm", "--force", door.container], check=True, capture_output=True)


def _await_health(door: Door) -> None:
    for _ in range(200):
        try:
            httpx.get(f"http://127.0.0.1:{door.inner}/healthz", trust_env=False)
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(door.output())


class House:
    """All services behind nginx, each a small server of its own, and the names of them all."""

    def __init__(self, app: Callable[[str], ASGIApp]) -> None:
        self._app = app
        self._stack = ExitStack()
        self.names = Names()
        self.port = free_port()
        self._network = os.getpid() % 200 + 1
        self._last = 0

    def address(self) -> str:
        """One that nobody has yet."""
        self._last += 1
        return f"127.77.{self._network}.{self._last}"

    @property
    def servers(self) -> dict[str, str]:
        return {name: f"{name}.test:{self.port}" for name in (*SERVICES, *INSIDE)}

    @property
    def resolver(self) -> str:
        return f"127.0.0.1:{self.names.port}"

    def __enter__(self) -> House:
        for name in (*SERVICES, *INSIDE):
            address = self.address()
            self._stack.enter_context(self.replica(name, address))
            self.names.of[name] = [address]
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self.names.close()

    def replica(self, name: str, address: str) -> Any:
        return serving(self._app(f"{name} {address}"), address, self.port)
