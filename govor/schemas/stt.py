"""Wire types of `/v1/transcribe`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Recognition = Literal["phrase", "open", "none"]


class TranscribeOptions(BaseModel):
    """What goes with the audio, as query parameters or form fields."""

    domain: str | None = None
    language: str | None = None
    model: str | None = None
    version: int | None = None
    word_timestamps: bool = False
    hints: list[str] = Field(default_factory=list, max_length=100)
    conversation_id: str | None = None


class Word(BaseModel):
    word: str
    start: float
    end: float
    confidence: float


class Segment(BaseModel):
    start: float
    end: float
    text: str
    confidence: float


class Transcript(BaseModel):
    """Times in seconds from the start of the audio; `confidence` 0 to 1."""

    id: str
    text: str
    language: str
    duration: float
    confidence: float
    recognition: Recognition
    warnings: list[str] = Field(default_factory=list)
    segments: list[Segment] = Field(default_factory=list)
    words: list[Word] | None = None
    model: str
    version: int
    timings: dict[str, float]
