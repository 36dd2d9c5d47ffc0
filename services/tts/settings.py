"""Settings of the text-to-speech service."""

from __future__ import annotations

from pydantic import Field

from govor.config import Settings


class TtsSettings(Settings):
    tts_languages: tuple[str, ...] = ("en", "ru")
    """Languages spoken, each by a model `tts-<language>`; the first where a text shows none."""
    tts_max_queued: int = Field(512, ge=1)
    """Pieces of text that may wait for a voice."""
