"""When a caller goes away the engines stop within 200 ms: nobody computes for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from tests.e2e.conftest import Govor

STOP_SECONDS = 0.2
EVENTS = {"accept": "text/event-stream"}
LONG = (
    "Please tell me what the stars say about love and money for Leo and for Virgo tomorrow. " * 10
)


async def stops(govor: Govor, counter: str, begin: Callable[[], Awaitable[None]]) -> None:
    """Starts work, abandons it once its counter moves, and looks at the counter afterwards."""
    before = govor.counter(counter)
    work = asyncio.ensure_future(begin())
    while (await asyncio.to_thread(govor.counter, counter)) < before + 3:
        assert not work.done(), "the work ended before it could be abandoned"
        await asyncio.sleep(0.01)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await asyncio.sleep(STOP_SECONDS)
    stopped = await asyncio.to_thread(govor.counter, counter)
    await asyncio.sleep(0.5)
    assert await asyncio.to_thread(govor.counter, counter) == stopped


async def test_decode_steps_stop(govor: Govor, door: httpx.AsyncClient) -> None:
    async def texts() -> None:
        """Far more than the slots hold: seconds of work."""
        fields = {"language": "en", "sign": "leo"}
        body = {"fields": fields, "n": 4, "max_tokens": 400, "stream": True}
        await asyncio.gather(*(door.post("/v1/generate", json=body) for _ in range(60)))

    await stops(govor, "generator_decode_steps_total", texts)


async def test_the_recogniser_stops_through_the_gateway(
    govor: Govor, door: httpx.AsyncClient
) -> None:
    """A minute of speech takes the recogniser seconds."""
    body = {"text": LONG, "language": "en", "sample_rate": 16000}
    speech = (await door.post("/v1/synthesize", json=body)).content

    async def turn() -> None:
        files = {"audio": ("long.wav", speech, "audio/wav")}
        await door.post("/v1/converse", files=files, data={"language": "en"}, headers=EVENTS)

    await stops(govor, "stt_sphinx_chunks_total", turn)
