"""What the understanding service reads beside the shared settings."""

from __future__ import annotations

from pydantic import Field

from govor.config import Settings


class NluSettings(Settings):
    """Settings of the service `nlu`."""

    nlu_max_batch: int = Field(16, ge=1, le=256)
    """Utterances that the trunk reads at once."""
