"""Small services to stand behind a real nginx (`bench.door`).

They are real servers on addresses of their own (127.77.x.x); a name server of a few lines tells
nginx where they are, so that a test can add a replica and take one away.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import uvicorn
from starlette.types import ASGIApp

from govor.routes import SERVICES
from tests.e2e.conftest import free_port

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
            assert thread.is_alive(), f"nothing can listen on {host}:{port}"
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

    def replica(self, name: str, address: str) -> AbstractContextManager[uvicorn.Server]:
        return serving(self._app(f"{name} {address}"), address, self.port)
