"""Settings of the speech-to-text service."""

from __future__ import annotations

from pydantic import Field

from govor.config import Settings


class SttSettings(Settings):
    stt_languages: tuple[str, ...] = ("en", "ru")
    """Languages listened for, each by a model `stt-<language>`."""
    stt_workers: int = Field(2, ge=1, le=64)
    """Recogniser processes a language: as many utterances are decoded at once."""
    stt_max_queued: int = Field(64, ge=1)
    """Utterances a language that may wait for a process."""
    stt_pause_seconds: float = Field(1.0, gt=0)
    """Silence that ends an utterance; each is recognised alone and becomes a segment."""
