"""What nginx costs: the CPU of one request to a service, with and without it in between.

The two ways take turns, so that what else the machine does meets both. nginx is started as the
stack starts it: limits, JSON log and headers are on.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.alone import service
from bench.door import FOLDER, Door, engine, nginx

ROUNDS = {"version": 40, "understand": 12}
COUNT, CONNECTIONS = 800, 32
ADDED_SECONDS = 40e-6
UNLIMITED = 10_000_000  # requests a minute: counted, never reached

_TEXT = b'{"text": "what do the stars say for leo tomorrow"}'
_KEY = "correct-horse-battery-staple"
_CALLER = b"host: localhost\r\nauthorization: Bearer " + _KEY.encode() + b"\r\n"
_JSON = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
REQUESTS = {
    "version": b"GET /version HTTP/1.1\r\n" + _CALLER + b"\r\n",
    "understand": b"POST /v1/understand HTTP/1.1\r\n" + _CALLER + _JSON % (len(_TEXT), _TEXT),
}


@dataclass
class Way:
    """How a request reaches the service, and the CPU of one, in seconds: a pair a round, the
    service's and nginx's."""

    name: str
    port: int
    processes: Sequence[int] = ()
    rounds: list[tuple[float, float]] = field(default_factory=list)

    def take(self, served_by: int, request: bytes) -> None:
        """One round of requests."""
        before = cpu_seconds([served_by]), cpu_seconds(self.processes)
        uvloop.run(_load(self.port, request))
        service = cpu_seconds([served_by]) - before[0]
        self.rounds.append((service / COUNT, (cpu_seconds(self.processes) - before[1]) / COUNT))

    @property
    def least(self) -> tuple[float, float]:
        """Of the cheapest round: what else runs on the machine only adds to a request's CPU."""
        return min(self.rounds, key=sum)


def main(arguments: Sequence[str]) -> int:
    """Prints a row for each way; 1 when the bar is missed."""
    if not engine():
        print("not run: no container engine")
        return 0
    with service("nlu", key=_KEY) as own, _doors(own.url) as (door, closing):
        port = int(own.url.rpartition(":")[2])
        added = []
        print(f"{'CPU a request, us':<40} {'service':>8} {'nginx':>8} {'added':>8} {'ratio':>6}")
        for name, request in REQUESTS.items():
            ways = [
                Way("the service alone", port),
                Way("through nginx", door.port, _processes(door)),
                Way("without upstream keepalive", closing.port, _processes(closing)),
            ]
            for _ in range(ROUNDS[name]):
                for way in ways:
                    way.take(own.pid, request)
            added.append(_table(name, ways))
    bar = f"at most {1e6 * ADDED_SECONDS:.0f} us of CPU added to a request"
    print(f"bar: {bar}, told by /version: a model's own CPU varies by more than nginx costs")
    return int(added[0] > ADDED_SECONDS)


def _table(name: str, ways: Sequence[Way]) -> float:
    """Prints the ways; gives what nginx adds to the first, in seconds."""
    alone = sum(ways[0].least)
    for way in ways:
        service, nginx = way.least
        parts = f"{1e6 * service:>8.0f} {1e6 * nginx:>8.1f}"
        added = service + nginx - alone
        print(f"{name + ': ' + way.name:<40} {parts} {1e6 * added:>8.1f} {1 + added / alone:>6.2f}")
    return sum(ways[1].least) - alone


@contextmanager
def _doors(url: str) -> Iterator[tuple[Door, Door]]:
    """nginx as it is, and one that closes its connection to the service after each request."""
    server = url.removeprefix("http://")
    servers = {"nlu": server, "gateway": server}
    with tempfile.TemporaryDirectory() as folder:
        closing = shutil.copytree(FOLDER / "templates", Path(folder) / "templates")
        Path(folder).chmod(0o755)
        for file in closing.glob("*.template"):
            text = file.read_text().replace("$hop;", "close;").replace("keepalive 32;", "")
            file.write_text(text)
        with (
            nginx(servers, GOVOR_RATE_LIMIT_PER_MINUTE=UNLIMITED) as door,
            nginx(servers, templates=closing, GOVOR_RATE_LIMIT_PER_MINUTE=UNLIMITED) as other,
        ):
            yield door, other


def _processes(door: Door) -> list[int]:
    """The main process and its workers."""
    children = Path(f"/proc/{door.pid}/task/{door.pid}/children").read_text().split()
    return [door.pid, *map(int, children)]


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU that the threads of these processes have had."""
    files = (file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(file.read_text().split()[0]) for file in files) / 1e9


class _Caller(asyncio.Protocol):
    """Asks on one connection, again as soon as it was answered. Raises for any answer but 200."""

    def __init__(self, request: bytes, left: int) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._request = request
        self._left = left
        self._answer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._request)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError("the connection was closed"))

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        if not end or len(body) < int(length):
            return
        self._answer, self._left = b"", self._left - 1
        if not head.startswith(b"HTTP/1.1 200"):
            self._transport.abort()
            self.done.set_exception(RuntimeError(f"the service answered {head[:40]!r}"))
        elif self._left:
            self._transport.write(self._request)
        else:
            self.done.set_result(None)
            self._transport.close()


async def _load(port: int, request: bytes) -> None:
    """As many requests as a round has, over connections that stay open."""
    loop = asyncio.get_running_loop()

    async def call() -> None:
        _, caller = await loop.create_connection(
            lambda: _Caller(request, COUNT // CONNECTIONS), "127.0.0.1", port
        )
        await caller.done

    await asyncio.gather(*(call() for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
