"""What the generator reads beside the shared settings."""

from __future__ import annotations

from pydantic import Field

from govor.config import Settings


class GeneratorSettings(Settings):
    """Settings of the service `generator`."""

    generator_slots: int = Field(16, ge=1, le=256)
    """Texts that are drawn at the same time; more wait. A slot of the bundled version takes up to
    6 MB."""
