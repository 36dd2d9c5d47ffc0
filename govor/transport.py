"""httpx calls into an ASGI app of the same process, streaming both ways.

httpx's own `ASGITransport` buffers the whole answer and never tells the app that the caller has
gone. Here the first chunk arrives before the last one is made, and closing the response reaches the
app as `http.disconnect`, as over a socket. Lifespans are not its business.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from starlette.types import ASGIApp, Message

# Chunks that an app may be ahead of its reader.
_AHEAD = 8


class StreamingTransport(httpx.AsyncBaseTransport):
    """Runs each request as a task of the current event loop."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises `httpx.RemoteProtocolError` when the app ends without an answer."""
        exchange = _Exchange(request)
        task = asyncio.create_task(exchange.run(self._app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(exchange.ended)
        try:
            start = await exchange.next_message()
        except BaseException:
            exchange.closed.set()
            raise
        return httpx.Response(start["status"], headers=start["headers"], stream=exchange)

    async def aclose(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Exchange(httpx.AsyncByteStream):
    """One request and its answer; the answer's body when iterated."""

    def __init__(self, request: httpx.Request) -> None:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self._request = request
        self._upload = aiter(request.stream)
        self._uploaded = False
        self._timeout: float | None = request.extensions.get("timeout", {}).get("read")
        self._messages: asyncio.Queue[Message | BaseException] = asyncio.Queue(_AHEAD)
        self.closed = asyncio.Event()

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(_scope(self._request), self._receive, self._send)
        except Exception as error:
            ended: BaseException = error
        else:
            ended = RuntimeError("the app ended without completing its answer")
        if not self.closed.is_set():
            await self._send_or_leave(ended)

    def ended(self, task: asyncio.Task[None]) -> None:
        """Tells the reader of an app that was cancelled, even before it ran; what waits to be read
        makes room: the answer is broken."""
        if task.cancelled():
            if self._messages.full():
                while not self._messages.empty():
                    self._messages.get_nowait()
            self._messages.put_nowait(RuntimeError("the app was cancelled"))

    async def next_message(self) -> Message:
        try:
            async with asyncio.timeout(self._timeout):
                message = await self._messages.get()
        except TimeoutError as error:
            raise httpx.ReadTimeout("no answer in time", request=self._request) from error
        if isinstance(message, BaseException):
            raise httpx.RemoteProtocolError(
                "the app failed to answer", request=self._request
            ) from message
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.next_message()
            more = message.get("more_body", False)
            if body := message.get("body", b""):
                yield body

    async def aclose(self) -> None:
        self.closed.set()

    async def _receive(self) -> Message:
        if not self._uploaded and not self.closed.is_set():
            chunk = await anext(self._upload, None)
            self._uploaded = chunk is None
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        """As a server does, says nothing when the reader has gone."""
        if message["type"] in ("http.response.start", "http.response.body"):
            await self._send_or_leave(message)

    async def _send_or_leave(self, message: Message | BaseException) -> None:
        if self._messages.full() and not self.closed.is_set():
            put = asyncio.ensure_future(self._messages.put(message))
            gone = asyncio.ensure_future(self.closed.wait())
            try:
                await asyncio.wait({put, gone}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                put.cancel()
                gone.cancel()
        elif not self.closed.is_set():
            self._messages.put_nowait(message)


def _scope(request: httpx.Request) -> dict[str, Any]:
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.split(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (url.host, url.port),
        "client": ("127.0.0.1", 0),
        "state": {},
    }
