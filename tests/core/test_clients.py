"""The typed clients against small services, in process and over a socket."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from govor import clients
from govor.clients import Outgoing, connect
from govor.errors import DeadlineExceeded, GovorError, NotFound, Overloaded, Unavailable
from govor.keys import secret
from govor.schemas.generation import Delta, GenerateRequest, Generation, Usage
from govor.schemas.nlu import UnderstandRequest
from govor.schemas.stt import TranscribeOptions
from govor.schemas.tts import SynthesizeRequest
from govor.service import create_service
from govor.transport import StreamingTransport
from govor.verbs import Call, verb
from tests.core.apps import on_a_port, settings_in
from tests.core.waiting import PATIENCE_SECONDS, until

URLS = {name: f"http://{name}" for name in ("stt", "nlu", "generator", "tts")}


class Fake:
    """A service whose one verb does what the test says, and notes what it was asked."""

    def __init__(self, folder: Path, name: str, path: str) -> None:
        self.calls: list[Call] = []
        self.bodies: list[bytes] = []
        self.raises: list[GovorError] = []
        self.ended = asyncio.Event()
        self.app = create_service(name, settings_in(folder), description="", parts={})
        verb(self.app, path, self.answer)

    async def answer(self, call: Call) -> None:
        self.calls.append(call)
        self.bodies.append(await call.body(1 << 20))
        if self.raises:
            raise self.raises.pop(0)
        try:
            await self.respond(call)
        finally:
            self.ended.set()

    async def respond(self, call: Call) -> None:
        await call.send_json({})


def of(fake: Fake) -> clients.Siblings:
    name = fake.app.state.service
    key = secret(fake.app.state.settings.internal_key_path).decode()
    return connect(URLS, key, {name: StreamingTransport(fake.app)})


def outgoing(timeout: float = PATIENCE_SECONDS) -> Outgoing:
    return Outgoing("id-1", timeout, user="anna", traceparent="00-1-2-01")


UNDERSTANDING: dict[str, Any] = {
    "text": "hi",
    "language": "en",
    "intent": {"name": "greet", "confidence": 1.0},
    "intent_ranking": [],
    "entities": [],
    "out_of_scope": False,
    "model": "nlu",
    "version": 1,
    "timings": {},
}


class Nlu(Fake):
    async def respond(self, call: Call) -> None:
        await call.send_json(UNDERSTANDING)


@pytest.fixture
def nlu(tmp_path: Path) -> Nlu:
    return Nlu(tmp_path, "nlu", "/v1/understand")


class Clock:
    """Stands still, for what looks at `time.monotonic()`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def test_a_call_passes_on_who_and_how_long(nlu: Nlu) -> None:
    before = time.monotonic()
    answer = await of(nlu).nlu.understand(UnderstandRequest(text="hi"), outgoing(60))
    after = time.monotonic()
    assert answer.intent.name == "greet"
    call = nlu.calls[0]
    assert (call.request_id, call.user) == ("id-1", "anna")
    assert call.principal.internal
    assert call.principal.subject is not None
    assert call.headers["traceparent"] == "00-1-2-01"
    assert before <= call.deadline - 60 <= after
    assert nlu.bodies == [b'{"text":"hi"}']


@pytest.mark.parametrize(
    "error",
    [
        NotFound("no such pack", code="domain_not_found", param="domain"),
        Overloaded("512 requests are waiting", code="queue_full", retry_after=3),
        DeadlineExceeded("too late"),
    ],
)
async def test_an_error_comes_back_as_itself(nlu: Nlu, error: GovorError) -> None:
    nlu.raises = [error]
    with pytest.raises(type(error)) as caught:
        await of(nlu).nlu.understand(UnderstandRequest(text="hi"), outgoing())
    assert caught.value.body() == error.body()
    assert caught.value.retry_after == error.retry_after
    assert len(nlu.calls) == 1


async def test_understanding_is_tried_again_within_a_budget(nlu: Nlu) -> None:
    sibling = of(nlu).nlu
    nlu.raises = [Unavailable("starting")]
    await sibling.understand(UnderstandRequest(text="hi"), outgoing())
    assert len(nlu.calls) == 2
    nlu.raises = [Unavailable("starting")]
    with pytest.raises(Unavailable):
        await sibling.understand(UnderstandRequest(text="hi"), outgoing())
    assert len(nlu.calls) == 3


async def test_a_slow_sibling_is_late_and_its_work_ends(nlu: Nlu) -> None:
    async def slow(call: Call) -> None:
        await call.until_disconnect(asyncio.sleep(10 * PATIENCE_SECONDS))

    nlu.respond = slow  # type: ignore[method-assign]
    with pytest.raises(DeadlineExceeded):
        await of(nlu).nlu.understand(UnderstandRequest(text="hi"), outgoing(0.1))
    await until(nlu.ended.is_set)


async def test_a_dead_sibling_is_left_alone_for_a_while(
    nlu: Nlu, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(clients, "time", clock)
    tries = 0

    async def wire(request: httpx.Request) -> httpx.Response:
        nonlocal tries
        tries += 1
        raise httpx.ConnectError("refused")

    sibling = connect(URLS, "key", {"stt": httpx.MockTransport(wire)}).stt
    audio = (b"", "audio/wav", TranscribeOptions())
    for _ in range(8):
        with pytest.raises(Unavailable) as caught:
            await sibling.transcribe(*audio, outgoing())
        assert caught.value.code == "stt_unavailable"
    assert tries == 5
    clock.now += 2.1
    for _ in range(3):
        with pytest.raises(Unavailable):
            await sibling.transcribe(*audio, outgoing())
    assert tries == 6


async def test_a_full_pool_says_nothing_of_the_sibling(
    nlu: Nlu, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def hold(call: Call) -> None:
        entered.set()
        await go_on.wait()
        await call.send_json(UNDERSTANDING)

    nlu.respond = hold  # type: ignore[method-assign]
    monkeypatch.setattr(clients, "_POOL", httpx.Limits(max_connections=1))
    key = secret(nlu.app.state.settings.internal_key_path).decode()
    request = UnderstandRequest(text="hi")
    async with on_a_port(nlu.app, nlu.app) as url:
        sibling = connect(dict.fromkeys(URLS, url), key).nlu
        first = asyncio.create_task(sibling.understand(request, outgoing()))
        await asyncio.wait_for(entered.wait(), PATIENCE_SECONDS)
        with monkeypatch.context() as hasty:
            hasty.setattr(clients, "_CONNECT_SECONDS", 0.01)
            for _ in range(8):
                with pytest.raises(Overloaded, match="all connections to nlu are in use"):
                    await sibling.understand(request, outgoing())
        go_on.set()
        await first
        await sibling.understand(request, outgoing())
        await sibling.aclose()
    assert len(nlu.calls) == 2


async def test_a_caller_who_leaves_says_nothing_of_the_sibling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(clients, "time", Clock())
    hangs = False

    async def wire(request: httpx.Request) -> httpx.Response:
        if hangs:
            await asyncio.sleep(10 * PATIENCE_SECONDS)
        raise httpx.ConnectError("refused")

    sibling = connect(URLS, "key", {"stt": httpx.MockTransport(wire)}).stt
    audio = (b"", "audio/wav", TranscribeOptions())
    for _ in range(4):
        with pytest.raises(Unavailable, match=r"is not reached$"):
            await sibling.transcribe(*audio, outgoing())
    hangs = True
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(sibling.transcribe(*audio, outgoing()), 0.02)
    hangs = False
    for again in (r"is not reached$", "tried again soon"):
        with pytest.raises(Unavailable, match=again):
            await sibling.transcribe(*audio, outgoing())


async def test_an_answer_of_another_shape_is_no_answer(nlu: Nlu) -> None:
    async def other(call: Call) -> None:
        await call.send_json({"text": "hi"})

    nlu.respond = other  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="nlu answered something else") as caught:
        await of(nlu).nlu.understand(UnderstandRequest(text="hi"), outgoing())
    assert caught.value.code == "nlu_unavailable"


class Generator(Fake):
    pause = 0.0

    async def respond(self, call: Call) -> None:
        for word in ("The ", "stars"):
            await call.event("delta", Delta(text=word))
            await asyncio.sleep(self.pause)
        await call.event("done", self.whole())

    @staticmethod
    def whole() -> Generation:
        return Generation(
            id="g",
            text="The stars",
            finish_reason="stop",
            usage=Usage(prompt_tokens=1, completion_tokens=2),
            model="generator",
            version=1,
            timings={},
        )


@pytest.fixture
def generator(tmp_path: Path) -> Generator:
    return Generator(tmp_path, "generator", "/v1/generate")


async def test_a_generation_streams(generator: Generator) -> None:
    request = GenerateRequest(prompt="x")
    got = [part async for part in of(generator).generator.stream(request, outgoing())]
    assert got == [Delta(text="The "), Delta(text="stars"), generator.whole()]
    assert b'"stream":true' in generator.bodies[0]


async def test_only_a_newline_ends_a_line_of_a_stream() -> None:
    words = [Delta(text="один\u2028два\x85три\u2029"), Delta(text="\x1c\x1d\x1e\x0b\x0c")]

    async def pieces() -> AsyncIterator[bytes]:
        for word in words:
            for byte in b"event: delta\ndata: %b\n\n" % word.model_dump_json().encode():
                yield bytes([byte])
        yield b"event: done\ndata: %b\n\n" % Generator.whole().model_dump_json().encode()

    async def wire(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=pieces())

    siblings = connect(URLS, "key", {"generator": httpx.MockTransport(wire)})
    parts = siblings.generator.stream(GenerateRequest(prompt="x"), outgoing())
    assert [part async for part in parts] == [*words, Generator.whole()]


async def test_closing_a_stream_ends_the_generation(generator: Generator) -> None:
    generator.pause = 10 * PATIENCE_SECONDS
    parts = of(generator).generator.stream(GenerateRequest(prompt="x"), outgoing())
    assert await anext(aiter(parts)) == Delta(text="The ")
    await parts.aclose()  # type: ignore[attr-defined]
    await until(generator.ended.is_set)


async def test_a_slow_reader_is_not_late_but_a_slow_stream_is(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, leapt = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + leapt)
    async for _ in of(generator).generator.stream(GenerateRequest(prompt="x"), outgoing()):
        leapt += 2 * PATIENCE_SECONDS  # what was due by then is late when the loop turns
        await asyncio.sleep(0.01)
    generator.pause = 10 * PATIENCE_SECONDS
    with pytest.raises(DeadlineExceeded):
        async for _ in of(generator).generator.stream(GenerateRequest(prompt="x"), outgoing(0.1)):
            pass


async def test_an_error_in_a_stream_comes_back(generator: Generator) -> None:
    async def fail(call: Call) -> None:
        await call.event("delta", Delta(text="The "))
        raise Overloaded("no slot", code="queue_full")

    generator.respond = fail  # type: ignore[method-assign]
    with pytest.raises(Overloaded, match="no slot"):
        async for _ in of(generator).generator.stream(GenerateRequest(prompt="x"), outgoing()):
            pass


@pytest.mark.parametrize("name", ["delta", "done", "error"])
async def test_an_event_of_another_shape_breaks_the_stream(name: str) -> None:
    async def wire(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=f"event: {name}\ndata: [1]\n\n")

    siblings = connect(URLS, "key", {"generator": httpx.MockTransport(wire)})
    with pytest.raises(GovorError) as caught:
        async for _ in siblings.generator.stream(GenerateRequest(prompt="x"), outgoing()):
            pass
    assert caught.value.status == (500 if name == "error" else 503)


@pytest.mark.parametrize("over", ["in process", "socket"])
async def test_speech_comes_in_pieces_and_breaks_visibly(tmp_path: Path, over: str) -> None:
    fake = Fake(tmp_path, "tts", "/v1/synthesize")

    async def speak(call: Call) -> None:
        await call.start("audio/wav", headers={"X-Audio-Sample-Rate": "8000", "X-Model": "tts-en"})
        await call.write(b"RIFF")
        raise RuntimeError("the engine died")

    fake.respond = speak  # type: ignore[method-assign]

    async def listen(siblings: clients.Siblings) -> None:
        request = SynthesizeRequest(text="hi")
        async with siblings.tts.synthesize(request, outgoing()) as speech:
            assert (speech.sample_rate, speech.model) == (8000, "tts-en")
            pieces = aiter(speech)
            assert await anext(pieces) == b"RIFF"
            await anext(pieces)

    if over == "in process":
        with pytest.raises(Unavailable, match="broke off"):
            await listen(of(fake))
        return
    key = secret(fake.app.state.settings.internal_key_path).decode()
    async with on_a_port(fake.app, fake.app) as url:
        with pytest.raises(Unavailable, match="broke off"):
            await listen(connect(dict.fromkeys(URLS, url), key))


@pytest.mark.parametrize("rate", [None, "", "fast", "0", "-8000", "8e3", "9" * 5000])
async def test_speech_at_no_rate_is_another_answer(rate: str | None) -> None:
    async def wire(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"x-audio-sample-rate": rate} if rate else {})

    siblings = connect(URLS, "key", {"tts": httpx.MockTransport(wire)})
    with pytest.raises(Unavailable, match="tts answered something else"):
        async with siblings.tts.synthesize(SynthesizeRequest(text="hi"), outgoing()):
            pass


async def test_readiness_of_a_sibling(nlu: Nlu) -> None:
    siblings = of(nlu)
    async with asyncio.timeout(PATIENCE_SECONDS):
        # A busy machine does not say so within a second.
        while (said := await siblings.nlu.ready()) == (False, "not reached"):
            pass
    assert said == (True, "ready")
    assert (await connect(dict.fromkeys(URLS, "http://127.0.0.1:9"), "k").stt.ready())[0] is False
    await siblings.aclose()
