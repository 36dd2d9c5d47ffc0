"""When a caller goes away the engines stop at once: nobody computes for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from tests.e2e.conftest import Govor

# Of the whole work, what may be done before an engine stops: it takes seconds.
SHARE = 0.25
EVENTS = {"accept": "text/event-stream"}
LONG = (
    "Please tell me what the stars say about love and money for Leo and for Virgo tomorrow. " * 10
)


async def stops(
    govor: Govor, counter: str, whole: int, begin: Callable[[], Awaitable[None]]
) -> None:
    """In one of five times: other work on the machine may keep the news from an engine."""
    further: list[float] = []
    while min(further, default=whole) > SHARE * whole and len(further) < 5:
        further.append(await done_for_nobody(govor, counter, begin))
    assert further[-1] <= SHARE * whole, further


async def done_for_nobody(
    govor: Govor, counter: str, begin: Callable[[], Awaitable[None]]
) -> float:
    """Starts work, abandons it once its counter moves, and waits until that rests: by how much it
    has moved on."""
    before = govor.counter(counter)
    work = asyncio.ensure_future(begin())
    while (abandoned := await asyncio.to_thread(govor.counter, counter)) < before + 3:
        assert not work.done(), "the work ended before it could be abandoned"
        await asyncio.sleep(0.01)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    last, now = -1.0, abandoned
    async with asyncio.timeout(120):
        while now != last:
            await asyncio.sleep(0.5)
            last, now = now, await asyncio.to_thread(govor.counter, counter)
    return now - abandoned


async def test_decode_steps_stop(govor: Govor, door: httpx.AsyncClient) -> None:
    async def texts() -> None:
        """Far more than the slots hold: seconds of work."""
        fields = {"language": "en", "sign": "leo"}
        body = {"fields": fields, "n": 4, "max_tokens": 400, "stream": True}
        await asyncio.gather(*(door.post("/v1/generate", json=body) for _ in range(60)))

    await stops(govor, "generator_decode_steps_total", 1200, texts)


async def test_the_recogniser_stops_through_the_gateway(
    govor: Govor, door: httpx.AsyncClient
) -> None:
    """A minute of speech takes the recogniser seconds."""
    body = {"text": LONG, "language": "en", "sample_rate": 16000}
    speech = (await door.post("/v1/synthesize", json=body)).content

    async def turn() -> None:
        files = {"audio": ("long.wav", speech, "audio/wav")}
        await door.post("/v1/converse", files=files, data={"language": "en"}, headers=EVENTS)

    await stops(govor, "stt_sphinx_chunks_total", 800, turn)
