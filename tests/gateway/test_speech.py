"""Pieces of speech become one stream."""

from __future__ import annotations

import asyncio
import io
import time
import wave

import httpx
import pytest

from govor.bodies import Disconnected
from govor.clients import Outgoing
from govor.errors import DeadlineExceeded
from govor.schemas.tts import AudioFormat, SynthesizeRequest
from govor.schemas.turn import ConverseRequest
from services.gateway import errands
from services.gateway.errands import Asked, Errands
from services.gateway.settings import GatewaySettings
from services.gateway.speech import Speaker, wav_header
from tests.gateway.conftest import until
from tests.gateway.siblings import RATE, Script, siblings


def patient() -> Outgoing:
    return Outgoing("r", 30.0)


async def speak(script: Script, kind: AudioFormat, down: bool = False) -> Speaker:
    client = siblings(script, ["tts"] if down else []).tts
    request = SynthesizeRequest(text=".", format=kind)
    told: list[bytes] = []

    async def emit(chunk: bytes, rate: int) -> None:
        assert rate == RATE
        told.append(chunk)

    speaker = Speaker(client, request, patient, emit)
    for text in ("One.", " ", "Two."):
        speaker.say(text)
    await speaker.finish()
    if speaker.audio is not None:
        assert b"".join(told)[-16:] == speaker.audio[-16:]
    return speaker


@pytest.mark.parametrize(("kind", "wire"), [("wav", "pcm"), ("pcm", "pcm"), ("mp3", "mp3")])
async def test_pieces_are_joined(kind: AudioFormat, wire: str) -> None:
    script = Script()
    speaker = await speak(script, kind)
    asked = script.requests("/v1/synthesize")
    assert [(body["text"], body["format"]) for body in asked] == [("One.", wire), ("Two.", wire)]
    assert speaker.audio is not None
    assert speaker.audio[-16::2] == b"One.Two."
    assert speaker.version == "tts-en:1"


async def test_flac_waits_for_the_whole() -> None:
    script = Script()
    await speak(script, "flac")
    assert [body["text"] for body in script.requests("/v1/synthesize")] == ["One. Two."]


async def test_what_could_not_all_be_spoken_is_no_audio() -> None:
    speaker = await speak(Script(), "wav", down=True)
    assert speaker.audio is None
    assert speaker.failed is not None
    assert speaker.failed.code == "tts_unavailable"


async def test_a_piece_has_what_is_left_of_the_deadline_and_is_not_begun_after_it() -> None:
    script, left = Script(), [30.0, 20.0]

    def outgoing() -> Outgoing:
        if not left:
            raise DeadlineExceeded("the deadline passed during the turn")
        return Outgoing("r", left.pop(0))

    request = SynthesizeRequest(text=".", format="pcm")
    speaker = Speaker(siblings(script).tts, request, outgoing, None)
    for text in ("One.", "Two.", "Three."):
        speaker.say(text)
    await speaker.finish()
    told = [headers["x-request-timeout"] for _, _, headers in script.asked]
    assert told == ["30.000", "20.000"]
    assert isinstance(speaker.failed, DeadlineExceeded)
    assert speaker.audio is None


async def test_speech_ends_with_the_deadline_of_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 1000.0
        perf_counter = staticmethod(time.perf_counter)

        def monotonic(self) -> float:
            return self.now

    script, clock = Script(), Clock()
    monkeypatch.setattr(errands, "time", clock)
    request = ConverseRequest(text="hi", reply=["text", "audio"], format="pcm")
    asked = Asked(request, None, "r", clock.now + 8)
    about = ("desk", "en", "c", "answer")
    async with httpx.AsyncClient() as web:
        one = Errands(GatewaySettings(), siblings(script), web, asked, *about)
        speaker = one.speak(None, None)
        clock.now += 5
        speaker.say("One.")
        await until(lambda: speaker.busy > 0)
        clock.now += 5
        speaker.say("Two.")
        await one.spoken(speaker, 0.0)
    told = [headers["x-request-timeout"] for _, _, headers in script.asked]
    assert (told, one.degraded) == (["3.000"], ["tts"])


async def test_a_slow_listener_does_not_hold_synthesis_up() -> None:
    script, listening = Script(), asyncio.Event()

    async def emit(chunk: bytes, rate: int) -> None:
        await listening.wait()

    request = SynthesizeRequest(text=".", format="pcm")
    speaker = Speaker(siblings(script).tts, request, patient, emit)
    speaker.say("Twenty letters here.")
    await until(lambda: speaker.busy > 0)  # all is spoken, and nothing heard
    listening.set()
    await speaker.finish()
    assert speaker.failed is None
    assert script.unfinished == 0


async def test_nothing_runs_on_when_nobody_listens() -> None:
    script = Script()

    async def emit(chunk: bytes, rate: int) -> None:
        raise Disconnected

    request = SynthesizeRequest(text=".", format="pcm")
    speaker = Speaker(siblings(script).tts, request, patient, emit)
    speaker.say("A long text. " * 200)
    with pytest.raises(Disconnected):
        await speaker.finish()
    await until(lambda: script.unfinished == 1)


def test_a_wav_header_is_readable() -> None:
    with wave.open(io.BytesIO(wav_header(16000, 8) + bytes(8))) as audio:
        assert (audio.getnchannels(), audio.getsampwidth()) == (1, 2)
        assert (audio.getframerate(), audio.getnframes()) == (16000, 4)
    assert wav_header(8000)[40:] == b"\xdb\xff\xff\xff"
