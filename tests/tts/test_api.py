"""services/tts/api.py, with the engines of this machine."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from govor.audio import decode
from services.tts import backends
from services.tts.main import create_app
from services.tts.settings import TtsSettings
from tests.conftest import Running

pytestmark = pytest.mark.skipif(
    not backends.installed(), reason=f"no speech engine: {backends.INSTALL}"
)

LONG = "The moon is in your corner today, and the small things may be easier than they look. " * 10


@pytest.fixture
async def client(tmp_path: Path, running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with running(create_app(TtsSettings(var=tmp_path))) as client:
        yield client


@pytest.mark.parametrize("format_", ["wav", "flac", "mp3", "opus"])
@pytest.mark.parametrize(("text", "model"), [("Hello there.", "tts-en"), ("Привет!", "tts-ru")])
@pytest.mark.parametrize("stream", [True, False])
async def test_every_format_plays_back(
    client: httpx.AsyncClient, format_: str, text: str, model: str, stream: bool
) -> None:
    body = {"text": text, "format": format_, "stream": stream}
    answer = await client.post("/v1/synthesize", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-model"] == model
    assert answer.headers["x-model-version"] == "1"
    waveform = decode(answer.content, answer.headers["content-type"], 60)
    assert 0.3 < waveform.samples.size / waveform.rate < 3
    assert np.abs(waveform.samples).max() > 0.1


@pytest.mark.parametrize(("format_", "bytes_per_sample"), [("pcm", 2), ("ulaw", 1)])
async def test_raw_formats_are_what_the_header_says(
    client: httpx.AsyncClient, format_: str, bytes_per_sample: int
) -> None:
    body = {"text": "Hello there.", "format": format_, "sample_rate": 8000}
    answer = await client.post("/v1/synthesize", json=body)
    assert answer.headers["x-audio-sample-rate"] == "8000"
    assert 0.3 < len(answer.content) / bytes_per_sample / 8000 < 3


async def test_the_first_bytes_leave_long_before_the_last(client: httpx.AsyncClient) -> None:
    async with client.stream("POST", "/v1/synthesize", json={"text": LONG}) as answer:
        sizes = [len(chunk) async for chunk in answer.aiter_raw()]
    assert len(sizes) > 8
    assert sizes[0] < sum(sizes) * 0.1


async def test_a_whole_wav_knows_its_length(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/synthesize", json={"text": "Hello.", "stream": False})
    stated = int.from_bytes(io.BytesIO(answer.content).getbuffer()[40:44], "little")
    assert stated == len(answer.content) - 44 == int(answer.headers["content-length"]) - 44


async def test_speed_changes_the_length(client: httpx.AsyncClient) -> None:
    lengths = []
    for speed in (0.5, 2.0):
        body = {"text": "Hello there.", "speed": speed, "format": "pcm"}
        lengths.append(len((await client.post("/v1/synthesize", json=body)).content))
    assert lengths[0] > 2.5 * lengths[1]


async def test_voices_differ(client: httpx.AsyncClient) -> None:
    bodies = [{"text": "Hello.", "voice": v, "format": "pcm"} for v in ("slt", "rms")]
    one, other = [(await client.post("/v1/synthesize", json=body)).content for body in bodies]
    assert one != other


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({"text": ""}, 422, "text", "invalid_value"),
        ({"text": "🙂"}, 422, "text", "invalid_value"),
        ({"text": "a" * 4001}, 422, "text", "text_too_long"),
        ({"text": "hi", "speed": 3}, 422, "speed", "invalid_value"),
        ({"text": "hi", "voice": "nobody"}, 422, "voice", "voice_not_found"),
        ({"text": "hi", "format": "opus", "sample_rate": 22050}, 422, "sample_rate", None),
        ({"text": "hi", "language": "de"}, 404, "language", "language_not_found"),
        ({"text": "hi", "model": "nope"}, 404, "model", "model_not_found"),
        ({"text": "hi", "version": 99}, 404, None, "version_not_found"),
        ({"text": "hi", "domain": "nope"}, 404, "domain", "domain_not_found"),
        ({"text": "hi", "domain": "../etc"}, 404, "domain", "domain_not_found"),
    ],
)
async def test_bad_requests_name_the_field(
    client: httpx.AsyncClient, body: dict[str, object], status: int, param: str, code: str | None
) -> None:
    answer = await client.post("/v1/synthesize", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert code is None or error["code"] == code
