"""The route of the text-to-speech service."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np
from fastapi import FastAPI

from govor.errors import NotFound, Unprocessable
from govor.model_service import headers_of
from govor.repository import Version
from govor.schemas.tts import CONTENT_TYPES, SynthesizeRequest
from govor.text import language_of
from govor.verbs import Call, verb
from services.tts.backends import Samples
from services.tts.encoding import Encoder, encode, rate_of
from services.tts.normalise import spoken
from services.tts.pieces import split
from services.tts.settings import TtsSettings
from services.tts.speaker import Speaker

AUDIO = {kind: {"type": "string", "format": "binary"} for kind in CONTENT_TYPES.values()}


def add_routes(app: FastAPI, settings: TtsSettings) -> None:
    async def synthesize(call: Call) -> None:
        """Speaks a text; numbers, dates and times are read as words. The language is told by the
        text's script unless it is given, and decides the voice. The bytes leave as they are made;
        without `stream` the whole audio comes with its length.
        """
        since = time.monotonic()
        request = await call.parse(SynthesizeRequest)
        if len(request.text) > settings.max_text_chars:
            raise Unprocessable(
                f"text has {len(request.text)} characters, at most {settings.max_text_chars}",
                param="text",
                code="text_too_long",
            )
        app.state.models.check_domain(request.domain)
        language, model = _language(request, settings)
        pieces = split(spoken(request.text, language))
        if not pieces:
            raise Unprocessable("text has nothing that can be spoken", param="text")
        async with app.state.models.acquire(call, model, request.version) as lease:
            speaker: Speaker = lease.model
            voice = speaker.voice(request.voice)
            audio = speaker.speak(pieces, voice, request.speed, call.deadline)
            async with aclosing(audio):
                seconds = await _answer(call, request, speaker.sample_rate, audio, lease.version)
        app.state.models.record(
            call,
            lease.version,
            language=language,
            input=request.text,
            output_seconds=seconds,
            conversation_id=request.conversation_id,
            timings={"total": time.monotonic() - since},
        )

    verb(
        app,
        "/v1/synthesize",
        synthesize,
        model="tts",
        summary="Speak a text; the first audio leaves after the first clause",
        request=SynthesizeRequest,
        answers=AUDIO,
        headers={"X-Audio-Sample-Rate": "samples per second of the audio"},
        examples={"application/json": {"text": "One moment, I am looking at the stars."}},
    )


def _language(request: SynthesizeRequest, settings: TtsSettings) -> tuple[str, str]:
    """The language spoken and its model: as asked, else by the text's script."""
    languages = settings.tts_languages
    if request.model is not None:
        return request.model.removeprefix("tts-"), request.model
    language = request.language or language_of(request.text, languages)
    if language not in languages:
        raise NotFound(
            f"language is one of {', '.join(languages)}",
            param="language",
            code="language_not_found",
        )
    return language, f"tts-{language}"


async def _answer(
    call: Call,
    request: SynthesizeRequest,
    source_rate: int,
    audio: AsyncIterator[Samples],
    version: Version,
) -> float:
    """Sends the audio, piece by piece or whole; its length in seconds."""
    rate = rate_of(request.format, source_rate, request.sample_rate)
    content_type = CONTENT_TYPES[request.format]
    headers = {"X-Audio-Sample-Rate": str(rate), **headers_of(version)}
    if not request.stream:
        pieces = await call.until_disconnect(_gather(audio))
        samples = np.concatenate(pieces)
        body = encode(samples, request.format, source_rate, rate)
        await call.send_bytes(body, content_type, headers=headers)
        return samples.size / source_rate
    encoder, count = Encoder(request.format, source_rate, rate), 0
    async for samples in audio:
        if count == 0:
            await call.start(content_type, headers=headers)
        count += samples.size
        if data := encoder.feed(samples):
            await call.write(data)
    if data := encoder.finish():
        await call.write(data)
    return count / source_rate


async def _gather(audio: AsyncIterator[Samples]) -> list[Samples]:
    return [samples async for samples in audio]
