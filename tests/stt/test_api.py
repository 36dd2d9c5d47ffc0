"""services/stt/api.py, with the bundled versions and our own voice."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from fastapi import FastAPI

from govor.audio import Waveform as Wave
from govor.audio import mulaw_encode, pcm16, resample
from govor.config import Settings
from services.stt.backends import RATE, Samples
from services.stt.main import create_app
from services.stt.settings import SttSettings
from tests.conftest import Running
from tests.stt.conftest import Speak, noise

ROUTE = "/v1/transcribe"


def wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(SttSettings(var=tmp_path, stt_workers=1))


@pytest.fixture
async def client(app: FastAPI, running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with running(app) as client:
        yield client


def audio(body: bytes, kind: str = "audio/wav") -> dict[str, Any]:
    return {"content": body, "headers": {"content-type": kind}}


async def test_an_utterance_of_the_pack_comes_back_exactly(
    client: httpx.AsyncClient, speak: Speak
) -> None:
    said = wav(speak("what can you do"))
    options = {"language": "en", "word_timestamps": "true", "hints": "leo"}
    answer = await client.post(ROUTE, files={"file": ("a.wav", said)}, data=options)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["text"], body["recognition"], body["language"]) == (
        "what can you do",
        "phrase",
        "en",
    )
    assert body["warnings"] == ["hints_ignored"]
    assert (body["model"], body["version"]) == ("stt-en", 1)
    assert (answer.headers["x-model"], answer.headers["x-model-version"]) == ("stt-en", "1")
    assert [word["word"] for word in body["words"]] == body["text"].split()
    (segment,) = body["segments"]
    assert segment["text"] == body["text"]
    assert 0 < segment["start"] < segment["end"] <= body["duration"]
    assert 0.5 <= body["confidence"] <= 1
    assert set(body["timings"]) == {"decode", "vad", "recognise", "total"}


@pytest.mark.parametrize("kind", ["audio/wav", "audio/basic", "audio/pcm;rate=16000", "audio/l16"])
async def test_raw_bodies(client: httpx.AsyncClient, speak: Speak, kind: str) -> None:
    said = speak("good morning")
    body = {
        "audio/wav": wav(said),
        "audio/basic": mulaw_encode(resample(Wave(said, RATE), 8000).samples),
        "audio/pcm;rate=16000": pcm16(said).astype("<i2").tobytes(),
        "audio/l16": pcm16(said).astype(">i2").tobytes(),
    }[kind]
    answer = await client.post(ROUTE, params={"language": "en"}, **audio(body, kind))
    assert answer.json()["text"] == "good morning"
    assert answer.json()["words"] is None


async def test_two_utterances_are_two_segments(client: httpx.AsyncClient, speak: Speak) -> None:
    pause = np.zeros(RATE, np.float32)
    both = np.concatenate([speak("good morning"), pause, speak("what can you do")])
    answer = await client.post(ROUTE, params={"language": "en"}, **audio(wav(both)))
    assert [s["text"] for s in answer.json()["segments"]] == ["good morning", "what can you do"]
    assert answer.json()["text"] == "good morning what can you do"


@pytest.mark.parametrize("language", ["en", "ru"])
async def test_silence_and_noise_are_nothing(client: httpx.AsyncClient, language: str) -> None:
    for samples in (np.zeros(3 * RATE, np.float32), noise(3, -20), noise(3, -25, pink=True)):
        answer = await client.post(ROUTE, params={"language": language}, **audio(wav(samples)))
        body = answer.json()
        assert (body["text"], body["recognition"], body["segments"]) == ("", "none", [])
        assert (body["confidence"], body["duration"]) == (0, 3)


async def test_russian_is_experimental_and_a_stranger_is_empty(
    client: httpx.AsyncClient, speak: Speak
) -> None:
    said = wav(speak("my neighbour bought seven yellow bicycles"))
    body = (await client.post(ROUTE, params={"language": "ru"}, **audio(said))).json()
    assert body["warnings"] == ["experimental_language"]
    assert (body["text"], body["recognition"], body["model"]) == ("", "none", "stt-ru")


async def test_the_language_is_the_packs_first_unless_named(client: httpx.AsyncClient) -> None:
    silence = audio(wav(np.zeros(RATE, np.float32)))

    async def language(**options: str) -> str:
        return str((await client.post(ROUTE, params=options, **silence)).json()["language"])

    assert await language(domain="support") == "en"
    assert await language(domain="horoscope") == "ru"
    assert await language(domain="horoscope", model="stt-en") == "en"


async def test_the_transcript_can_come_as_an_event(client: httpx.AsyncClient, speak: Speak) -> None:
    request = audio(wav(speak("good morning")))
    request["headers"]["accept"] = "text/event-stream"
    answer = await client.post(ROUTE, params={"language": "en"}, **request)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-model"] == "stt-en"
    name, data = answer.text.strip().split("\n")
    assert name == "event: final"
    assert json.loads(data.removeprefix("data: "))["text"] == "good morning"


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (audio(b""), 400, "audio_empty"),
        (audio(b"no audio at all"), 400, "audio_unreadable"),
        (audio(wav(np.zeros(RATE, np.float32))[:1000]), 400, "audio_truncated"),
        (audio(b"{}", "application/json"), 415, "unsupported_media_type"),
        (audio(b"ffconcat version 1.0\nfile '/etc/hostname'\n"), 400, "audio_unreadable"),
        ({"files": {"sound": ("a.wav", b"x")}}, 400, "file_missing"),
        (audio(wav(np.zeros(31 * RATE, np.float32))), 413, "audio_too_long"),
        (audio(bytes(2_000_000)), 413, "payload_too_large"),
        ({**audio(b"x"), "params": {"language": "fr"}}, 404, "language_not_found"),
        ({**audio(b"x"), "params": {"domain": "nothing"}}, 404, "domain_not_found"),
        ({**audio(b"x"), "params": {"version": "first"}}, 422, "invalid_value"),
    ],
)
async def test_refusals_say_why(
    tmp_path: Path, running: Running, request_: dict[str, Any], status: int, code: str
) -> None:
    # No model is loaded before the audio is understood: an empty home will do.
    settings = SttSettings(
        home=tmp_path,
        domains=Settings().domains_folder,
        max_audio_seconds=30,
        max_audio_bytes=1_500_000,
    )
    async with running(create_app(settings)) as client:
        answer = await client.post(ROUTE, **request_)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


async def test_unknown_models_and_versions_are_not_found(client: httpx.AsyncClient) -> None:
    silence = audio(wav(np.zeros(RATE, np.float32)))
    for options, code in (
        ({"model": "stt-fr"}, "model_not_found"),
        ({"version": "99"}, "version_not_found"),
    ):
        answer = await client.post(ROUTE, params=options, **silence)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, code)


async def test_a_disconnect_stops_the_decoding(
    app: FastAPI, client: httpx.AsyncClient, speak: Speak
) -> None:
    def chunks() -> float:
        value = app.state.metrics.registry.get_sample_value(
            "stt_sphinx_chunks_total", {"service": "stt"}
        )
        return float(value or 0)

    async def listen(samples: Samples) -> None:
        await client.post(ROUTE, params={"language": "en"}, **audio(wav(samples)))

    once = speak("please read the weather to me")[RATE // 4 : -RATE // 4]
    await listen(once)
    whole = 50 * chunks()
    assert whole
    task = asyncio.create_task(listen(np.tile(once, 50)))
    async with asyncio.timeout(60):
        while chunks() < whole / 20:
            await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await listen(speak("good morning"))  # by the one process that there is
    assert chunks() < whole * 3 / 4
