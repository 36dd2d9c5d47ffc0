"""The process: how it starts, refuses and stops. Real processes, real signals, small apps."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from govor.clients import events
from tests.core.apps import on_a_port
from tests.core.waiting import PATIENCE_SECONDS, until

HOME = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import os
from govor import door, logs, server
from govor.config import Settings
from tests.core.apps import create_app
settings = Settings()
door.LINGER_SECONDS = server.LINGER_SECONDS = float(os.environ.get("LINGER_SECONDS", "30"))
logs.configure(settings)
app = create_app(settings)
server.run(app, [app], settings, lambda url: print(url, flush=True))
print("stopped", flush=True)
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("GOVOR_")}
    ports = {"GOVOR_PORT": "0", "GOVOR_METRICS_PORT": "0"}
    return {**kept, **ports, "GOVOR_VAR": str(folder), "PYTHONPATH": str(HOME), **more}


@contextmanager
def started(folder: Path, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started(tmp_path_factory.mktemp("var")) as (_, url):
        yield url


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_clean_end(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as (process, url):
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_SECONDS).status_code == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, out, err) == (0, "stopped\n", "")


async def test_what_is_in_flight_is_answered_before_the_end(tmp_path: Path) -> None:
    with started(tmp_path) as (process, url):
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as http:
            body = {"text": "a", "times": 3, "pause": 0.5}
            async with http.stream("POST", "/v1/stream", json=body) as answer:
                got = events(answer)
                assert await anext(got) == ("delta", '{"text":"a"}')
                process.send_signal(signal.SIGTERM)
                await until(lambda: refused(url))
                assert [name async for name, _ in got] == ["delta", "delta", "done"]
        assert process.wait(PATIENCE_SECONDS) == 0


def refused(url: str) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection(_address(url), PATIENCE_SECONDS).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("GOVOR_PORT", "eighty", "GOVOR_PORT=eighty: "),
        ("GOVOR_PORT", "99999", "GOVOR_PORT=99999: "),
        ("GOVOR_PORT", "taken", "GOVOR_PORT=taken: cannot listen on 127.0.0.1: Address already in"),
        ("GOVOR_METRICS_PORT", "taken", "GOVOR_METRICS_PORT=taken: cannot listen on 127.0.0.1"),
        ("GOVOR_HOST", "0.0.0.0", "GOVOR_HOST=0.0.0.0 is reached by others and needs a key"),
        ("GOVOR_HOST", "192.0.2.1", "GOVOR_PORT=0: cannot listen on 192.0.2.1: "),
        ("GOVOR_DOMAIN", "weather", "GOVOR_DOMAIN=weather: there is no such pack"),
        ("GOVOR_LOG_LEVEL", "LOUD", "GOVOR_LOG_LEVEL=LOUD: "),
        ("GOVOR_KEYS_FILE", "/nothing", "GOVOR_KEYS_FILE: /nothing cannot be read"),
        ("GOVOR_VAR", "/proc/here", "GOVOR_VAR: /proc/here cannot be made"),
    ],
)
def test_a_bad_setting_is_one_line(tmp_path: Path, setting: str, value: str, said: str) -> None:
    assert_refused(tmp_path, ["nlu"], setting, value, said)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("GOVOR_HOST", "0.0.0.0", "GOVOR_HOST=0.0.0.0 is reached by others and needs a key"),
        ("GOVOR_DATABASE_URL", "sqlight:///x", "GOVOR_DATABASE_URL cannot be used: "),
    ],
)
def test_so_it_is_for_all_services(tmp_path: Path, setting: str, value: str, said: str) -> None:
    assert_refused(tmp_path, [], setting, value, said)


def assert_refused(folder: Path, services: list[str], setting: str, value: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "services", *services],
            env=environment(folder, **{setting: value.replace("taken", port)}),
            cwd=HOME,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1].startswith("govor cannot start: " + said.replace("taken", port)), done.stderr
    assert "Traceback" not in done.stderr


def test_a_body_that_never_comes_does_not_hold_a_connection(tmp_path: Path) -> None:
    head = (
        b"POST /v1/say HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"X-Request-Timeout: 0.2\r\nContent-Length: 100\r\n\r\n{"
    )
    with started(tmp_path, LINGER_SECONDS="0.5") as (_, url):
        answer = exchange(url, head)  # well before the 30 s of a request that names no deadline
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"connection: close" in answer.lower()


def exchange(url: str, data: bytes) -> bytes:
    """All that comes back until the connection ends."""
    with socket.create_connection(_address(url), 20) as client:
        client.sendall(data)
        return b"".join(iter(lambda: client.recv(4096), b""))


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /v1/say HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/say HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"x" * 200_000,
        b"GET /" + b"x" * 200_000,
    ],
)
def test_what_is_not_http_is_400_in_the_error_shape(server: str, data: bytes) -> None:
    head, _, body = exchange(server, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"x-request-id" in head
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{server}/healthz", timeout=PATIENCE_SECONDS).status_code == 200


@pytest.mark.parametrize("hop", ["keep-alive", "close"])
def test_head_and_body_leave_together(server: str, hop: str) -> None:
    request = f"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: {hop}\r\n\r\n".encode()
    for _ in range(50):
        with socket.create_connection(_address(server), PATIENCE_SECONDS) as client:
            client.sendall(request)
            assert client.recv(4096).endswith(b'{"status":"ok"}')
            assert hop != "close" or not client.recv(1)


async def test_a_head_does_not_wait_for_a_late_body() -> None:
    go_on = asyncio.Event()

    async def answer(scope: Scope, _: Receive, send: Send) -> None:
        length = (b"content-length", b"4")
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        if scope["method"] == "GET":
            await go_on.wait()
        await send({"type": "http.response.body", "body": b"late"})

    async with on_a_port(answer) as url, httpx.AsyncClient(base_url=url) as http:
        async with http.stream("GET", "/") as stream:
            assert stream.status_code == 200
            go_on.set()
            assert await stream.aread() == b"late"
        assert (await http.head("/")).headers["content-length"] == "4"


async def test_a_websocket_opens() -> None:
    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.send_text(await socket.receive_text())
        await socket.close()

    async with on_a_port(echo) as url, connect(url.replace("http", "ws")) as client:
        await client.send("heard")
        assert await client.recv() == "heard"


def test_memory_is_flat_under_refused_bodies(tmp_path: Path) -> None:
    body = b"x" * (8 << 20)
    with (
        started(tmp_path) as (process, url),
        httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as http,
    ):
        headers = {"content-type": "application/json"}
        sizes = []
        for _ in range(3):
            for _ in range(10):
                assert http.post("/v1/say", content=body, headers=headers).status_code == 413
            sizes.append(_resident(process.pid))
        assert sizes[-1] - sizes[0] < 8 << 20


def _address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def _resident(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
