"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field

from govor.config import Settings


class GatewaySettings(Settings):
    """Where the four services are, and how long a turn waits for each."""

    gateway_stt_url: str = "http://127.0.0.1:8091"
    """Speech to text. The embedded mode calls its services in process instead."""
    gateway_nlu_url: str = "http://127.0.0.1:8092"
    """Understanding."""
    gateway_generator_url: str = "http://127.0.0.1:8093"
    """Text generation."""
    gateway_tts_url: str = "http://127.0.0.1:8094"
    """Text to speech."""
    gateway_stt_timeout_seconds: float = Field(20.0, gt=0)
    """Longest wait for a transcript; then the reply says that something does not work."""
    gateway_nlu_timeout_seconds: float = Field(3.0, gt=0)
    """Longest wait for an understanding; then the reply is the menu."""
    gateway_generator_timeout_seconds: float = Field(10.0, gt=0)
    """Longest wait for a generated text; then the flow's `else:` is said."""
    gateway_tts_timeout_seconds: float = Field(10.0, gt=0)
    """Longest wait for the speech of one piece of the reply; then there is text alone."""
    gateway_actions_url: str | None = None
    """The action server, instead of the one that a pack names."""
    gateway_retrain_window_seconds: float = Field(21600.0, gt=0)
    """An alert asks for one training in this time, however often it is told."""
