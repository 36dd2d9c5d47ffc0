"""Wire types of `/v1/synthesize`; the answer is audio."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

AudioFormat = Literal["wav", "pcm", "mp3", "opus", "flac", "ulaw"]

CONTENT_TYPES: dict[str, str] = {
    "wav": "audio/wav",
    "pcm": "audio/pcm",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "ulaw": "audio/basic",
}


class SynthesizeRequest(BaseModel):
    """`sample_rate` in Hz, 8000 to 48000; the voice's own rate when it is absent."""

    text: str = Field(min_length=1)
    voice: str | None = None
    language: str | None = None
    speed: float = Field(1.0, ge=0.5, le=2)
    format: AudioFormat = "wav"
    sample_rate: int | None = Field(None, ge=8000, le=48000)
    stream: bool = True
    domain: str | None = None
    model: str | None = None
    version: int | None = None
    conversation_id: str | None = None
