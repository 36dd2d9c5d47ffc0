"""Wire types of `/v1/understand`: Rasa's parse result and what we add to it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, model_validator


class UnderstandRequest(BaseModel):
    text: str | None = None
    texts: list[str] | None = Field(None, min_length=1, max_length=256)
    language: str | None = None
    domain: str | None = None
    model: str | None = None
    version: int | None = None
    conversation_id: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> UnderstandRequest:
        if (self.text is None) == (self.texts is None):
            raise ValueError("give exactly one of text and texts")
        return self


class Intent(BaseModel):
    name: str | None
    confidence: float


class Entity(BaseModel):
    """A value found in the text; `start` and `end` count code points of the text as sent."""

    entity: str
    value: Any
    start: int
    end: int
    confidence: float


class Understanding(BaseModel):
    """`intent.name` is null when no intent is above the threshold (`out_of_scope`)."""

    text: str
    language: str
    intent: Intent
    intent_ranking: list[Intent]
    entities: list[Entity]
    out_of_scope: bool
    model: str
    version: int
    timings: dict[str, float]


class Understandings(BaseModel):
    """The answer to a batch, in the order of `texts`."""

    results: list[Understanding]
