"""The route of the speech-to-text service."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI

from govor.audio import Waveform, decode
from govor.errors import InvalidRequest, NotFound
from govor.model_service import headers_of
from govor.repository import Version
from govor.schemas.stt import Recognition, Segment, TranscribeOptions, Transcript, Word
from govor.verbs import Call, verb
from services.stt.backends import RATE, Backend, Heard
from services.stt.backends.silero import Span, SpeechDetector
from services.stt.settings import SttSettings

_FILE = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        **TranscribeOptions.model_json_schema()["properties"],
    },
}
_BYTES = {"type": "string", "format": "binary"}


def add_routes(
    app: FastAPI, settings: SttSettings, pack_languages: Mapping[str, Sequence[str]]
) -> None:
    """`pack_languages`: domain -> its languages, the first being its default."""
    models = app.state.models

    async def transcribe(call: Call) -> None:
        """Writes down what is said in a recording: wav, flac, mp3, ogg or webm with opus, m4a, as
        the field `file` of a form or as the body, and headerless `audio/basic`, `audio/pcm;rate=`,
        `audio/l16;rate=` as the body. Options are form fields or query parameters.

        `recognition` is `phrase` for a sentence of the domain's pack, `open` for free words, which
        deserve less trust, `none` when nothing was said or understood. The language is never
        detected: without `language` it is the pack's first. This backend cannot be hinted: `hints`
        add the warning `hints_ignored`. With `Accept: text/event-stream` the transcript comes as
        the event `final`.
        """
        since = time.monotonic()
        data, content_type, options = await _read(call, settings.max_audio_bytes)
        domain = models.check_domain(options.domain)
        language, model = _language(options, domain)
        waveform = await asyncio.to_thread(
            decode, data, content_type, settings.max_audio_seconds, RATE
        )
        decoded = time.monotonic()
        async with models.acquire(call, "vad") as lease:
            detector: SpeechDetector = lease.model
            spans = await asyncio.to_thread(
                detector.spans, waveform.samples, settings.stt_pause_seconds
            )
        detected = time.monotonic()
        async with models.acquire(call, model, options.version) as lease:
            backend: Backend = lease.model
            if domain not in backend.domains:
                raise NotFound(
                    f"{model} version {lease.version.number} knows no sentences of {domain}",
                    code="domain_not_found",
                    param="domain",
                )
            heard = await call.until_disconnect(
                _listen(backend, waveform, spans, domain, call.deadline)
            )
        ended = time.monotonic()
        timings = {
            "decode": decoded - since,
            "vad": detected - decoded,
            "recognise": ended - detected,
            "total": ended - since,
        }
        transcript = _transcript(
            waveform, spans, heard, options, backend.warnings, language, lease.version, timings
        )
        if call.wants_events():
            await call.start("text/event-stream", headers=headers_of(lease.version))
            await call.event("final", transcript)
        else:
            await call.send_json(transcript, headers=headers_of(lease.version))
        models.record(
            call,
            lease.version,
            id=transcript.id,
            language=language,
            output=transcript.text,
            input_seconds=transcript.duration,
            confidence=transcript.confidence,
            conversation_id=options.conversation_id,
            timings=timings,
        )

    def _language(options: TranscribeOptions, domain: str) -> tuple[str, str]:
        """The language listened for and its model: as asked, else the pack's first."""
        if options.model is not None:
            return options.model.removeprefix("stt-"), options.model
        default = pack_languages.get(domain, settings.stt_languages)[0]
        language = options.language or default
        if language not in settings.stt_languages:
            raise NotFound(
                f"language is one of {', '.join(settings.stt_languages)}",
                param="language",
                code="language_not_found",
            )
        return language, f"stt-{language}"

    verb(
        app,
        "/v1/transcribe",
        transcribe,
        model="stt",
        summary="Write down what is said in a recording",
        media={"multipart/form-data": _FILE, "audio/*": _BYTES},
        answers={"application/json": Transcript},
        headers={"X-Model": "who answered", "X-Model-Version": "its version"},
    )


async def _read(call: Call, limit: int) -> tuple[bytes, str, TranscribeOptions]:
    """The audio, its media type with parameters, and the options."""
    given: Mapping[str, Any] = call.query
    if call.content_type != "multipart/form-data":
        data = await call.body(limit)
        return data, call.headers.get("content-type", ""), call.options(TranscribeOptions, given)
    fields, files = await call.form(limit)
    if "file" not in files:
        raise InvalidRequest("the form has no file", code="file_missing", param="file")
    file = files["file"]
    return file.data, file.content_type, call.options(TranscribeOptions, {**given, **fields})


async def _listen(
    backend: Backend, waveform: Waveform, spans: Sequence[Span], domain: str, deadline: float
) -> list[Heard]:
    """What was said in each span, one after another: a caller takes one process at a time."""
    return [
        await backend.recognise(waveform.samples[span.start : span.end], domain, deadline)
        for span in spans
    ]


def _transcript(
    waveform: Waveform,
    spans: Sequence[Span],
    heard: Sequence[Heard],
    options: TranscribeOptions,
    warnings: Sequence[str],
    language: str,
    version: Version,
    timings: dict[str, float],
) -> Transcript:
    said = [(span.start / RATE, h) for span, h in zip(spans, heard, strict=True) if h.words]
    words = [
        Word(
            word=word.text,
            start=round(start + word.start, 2),
            end=round(start + word.end, 2),
            confidence=round(word.confidence, 3),
        )
        for start, h in said
        for word in h.words
    ]
    return Transcript(
        id=uuid.uuid4().hex,
        text=" ".join(h.text for _, h in said),
        language=language,
        duration=round(waveform.duration, 3),
        confidence=round(min((h.confidence for _, h in said), default=0.0), 3),
        recognition=_recognition(heard),
        warnings=[*warnings, *(["hints_ignored"] if options.hints else [])],
        segments=[
            Segment(
                start=round(start + h.words[0].start, 2),
                end=round(start + h.words[-1].end, 2),
                text=h.text,
                confidence=round(h.confidence, 3),
            )
            for start, h in said
        ],
        words=words if options.word_timestamps else None,
        model=version.model,
        version=version.number,
        timings={name: round(seconds, 4) for name, seconds in timings.items()},
    )


def _recognition(heard: Sequence[Heard]) -> Recognition:
    """Of the whole: free words anywhere make it `open`."""
    kinds = {h.recognition for h in heard}
    return "open" if "open" in kinds else "phrase" if "phrase" in kinds else "none"
