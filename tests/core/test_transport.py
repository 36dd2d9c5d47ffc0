import asyncio

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from govor.transport import StreamingTransport
from tests.core.waiting import PATIENCE_SECONDS


def client(app: object, timeout: float = PATIENCE_SECONDS) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=StreamingTransport(app),  # type: ignore[arg-type]
        base_url="http://app",
        timeout=timeout,
    )


async def respond(send: Send, *chunks: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for chunk in chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body"})


async def test_the_first_chunk_arrives_before_the_last_is_made() -> None:
    read = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await asyncio.wait_for(read.wait(), PATIENCE_SECONDS)
        await send({"type": "http.response.body", "body": b"two"})

    async with client(app) as http, http.stream("GET", "/") as answer:
        chunks = answer.aiter_raw()
        assert await anext(chunks) == b"one"
        read.set()
        assert [chunk async for chunk in chunks] == [b"two"]


async def test_closing_the_answer_disconnects_the_app() -> None:
    told = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        assert (await receive())["type"] == "http.disconnect"
        told.set()

    async with client(app) as http:
        async with http.stream("POST", "/", content=b"x"):
            pass
        await asyncio.wait_for(told.wait(), PATIENCE_SECONDS)


async def test_cancelling_the_caller_disconnects_the_app() -> None:
    told, asked = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            asked.set()
        told.set()

    async with client(app) as http:
        task = asyncio.create_task(http.get("/"))
        await asked.wait()
        task.cancel()
        await asyncio.wait_for(told.wait(), PATIENCE_SECONDS)


async def test_the_body_is_passed_on_as_it_comes() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        parts = []
        more = True
        while more:
            message = await receive()
            parts.append(message["body"])
            more = message["more_body"]
        await respond(send, *filter(None, parts))

    async def body():  # type: ignore[no-untyped-def]
        yield b"a"
        yield b"b"

    async with client(app) as http:
        assert (await http.post("/", content=body())).content == b"ab"


async def test_an_app_runs_only_a_little_ahead_of_its_reader() -> None:
    made = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal made
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for made in range(1000):  # noqa: B007
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await send({"type": "http.response.body"})

    async with client(app) as http, http.stream("GET", "/") as answer:
        chunks = answer.aiter_raw()
        await anext(chunks)
        await asyncio.sleep(0.01)
        assert made < 20
        assert len([chunk async for chunk in chunks]) == 999


@pytest.mark.parametrize("started", [False, True])
async def test_an_app_that_raises_is_a_broken_connection(started: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ValueError("inside")

    async with client(app) as http:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await http.get("/")
    assert isinstance(caught.value.__cause__, ValueError)


async def test_an_answer_that_ends_early_is_a_broken_connection() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with client(app) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/")


async def test_a_read_timeout_is_kept() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(PATIENCE_SECONDS)

    async with client(app, timeout=0.05) as http:
        with pytest.raises(httpx.ReadTimeout):
            await http.get("/")


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("chunks", [0, 20])
async def test_closing_the_transport_ends_who_reads(started: bool, chunks: int) -> None:
    began = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(chunks):
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.sleep(10 * PATIENCE_SECONDS)

    transport = StreamingTransport(app)
    http = httpx.AsyncClient(transport=transport, base_url="http://app", timeout=None)
    reader = asyncio.create_task(http.get("/"))
    await began.wait()
    await asyncio.wait_for(transport.aclose(), PATIENCE_SECONDS)
    with pytest.raises(httpx.RemoteProtocolError):
        await asyncio.wait_for(reader, PATIENCE_SECONDS)


async def test_closing_the_transport_ends_who_just_asked() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pytest.fail("it ran")

    transport = StreamingTransport(app)
    request = httpx.Request("GET", "http://app/")
    reader = asyncio.create_task(transport.handle_async_request(request))
    closing = asyncio.create_task(transport.aclose())
    with pytest.raises(httpx.RemoteProtocolError):
        await asyncio.wait_for(reader, PATIENCE_SECONDS)
    await closing


async def test_an_answer_cut_off_while_it_waits_to_be_read_is_broken() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, *[b"x"] * 20)

    transport = StreamingTransport(app)
    http = httpx.AsyncClient(transport=transport, base_url="http://app", timeout=None)
    async with http.stream("GET", "/") as answer:
        chunks = answer.aiter_raw()
        await anext(chunks)
        await asyncio.wait_for(transport.aclose(), PATIENCE_SECONDS)
        with pytest.raises(httpx.RemoteProtocolError):
            async for _ in chunks:
                pass
