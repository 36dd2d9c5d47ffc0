"""Nothing that a caller can send is our error, and nothing of it stays in memory."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import pytest

from tests.e2e.conftest import Govor
from tests.e2e.malformed import GOOD, Request, requests

ALL = list(requests())
# What a process may grow by between two rounds of all of them: allocators keep some.
GROWTH_BYTES = 16 << 20


async def fault(door: httpx.AsyncClient, request: Request) -> str | None:
    """What is wrong with the answer to a malformed request, if anything is."""
    answer = await door.request(
        request.method, request.path, headers=request.headers, content=request.content
    )
    if not 400 <= answer.status_code < 500:
        return f"{request.name}: {answer.status_code} {answer.text[:200]}"
    try:
        error = answer.json()["error"]
        shaped = set(error) == {"message", "type", "param", "code"} and len(error["message"]) < 500
    except (ValueError, KeyError, TypeError):
        shaped = False
    if not shaped or "x-request-id" not in answer.headers:
        return f"{request.name}: {answer.status_code} in another shape: {answer.text[:200]}"
    return None


async def faults(door: httpx.AsyncClient) -> list[str]:
    eight = asyncio.Semaphore(8)

    async def one(request: Request) -> str | None:
        async with eight:
            return await fault(door, request)

    return [said for said in await asyncio.gather(*map(one, ALL)) if said]


async def grown_by_a_round(govor: Govor, door: httpx.AsyncClient) -> float:
    first = govor.counter("process_resident_memory_bytes")
    assert await faults(door) == []
    return govor.counter("process_resident_memory_bytes") - first


def test_there_are_three_hundred() -> None:
    assert len({request.name for request in ALL}) == len(ALL) >= 300


async def test_malformed_requests_are_the_callers_fault(
    govor: Govor, door: httpx.AsyncClient
) -> None:
    assert await faults(door) == []
    # What leaks leaks each time; how many of the large ones meet does not repeat itself.
    grown = [await grown_by_a_round(govor, door)]
    while grown[-1] >= GROWTH_BYTES and len(grown) < 4:
        grown.append(await grown_by_a_round(govor, door))
    assert grown[-1] < GROWTH_BYTES, grown
    for path, body in GOOD.items():
        answer = await door.post(path, json=body)
        assert answer.status_code == 200 or path == "/v1/feedback", answer.text


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"Content-Length: 500\r\n\r\n{}", id="promises more"),
        pytest.param(b"Content-Length: 2\r\n\r\n" + b"{}" * 500, id="sends more"),
        pytest.param(b"Content-Length: 99999999999\r\n\r\n{}", id="promises too much"),
        pytest.param(b"Content-Length: two\r\n\r\n{}", id="no number"),
        pytest.param(b"Content-Length: -2\r\n\r\n{}", id="below zero"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\nnot hex\r\n", id="no chunk"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", id="both lengths"
        ),
    ],
)
def test_lying_headers_are_the_callers_fault(govor: Govor, data: bytes) -> None:
    head = (
        b"POST /v1/understand HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"X-Request-Timeout: 0.3\r\nConnection: close\r\n"
    )
    host, _, port = govor.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 60) as client:
        client.sendall(head + data)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    status, _, body = answer.partition(b"\r\n\r\n")
    assert status.startswith(b"HTTP/1.1 4")
    assert json.loads(body.partition(b"HTTP/1.1")[0])["error"]["type"]
    assert httpx.get(f"{govor.url}/readyz", timeout=60).status_code == 200
