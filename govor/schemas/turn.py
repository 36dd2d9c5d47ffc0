"""Wire types of the gateway: one turn of a conversation, feedback, conversations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from govor.config import Consent
from govor.schemas.nlu import Entity, Understanding
from govor.schemas.stt import Transcript
from govor.schemas.tts import AudioFormat

CONVERSATION_ID = r"^[A-Za-z0-9._:-]{1,128}$"


class ConverseOptions(BaseModel):
    """A turn without its utterance: JSON fields, or form fields beside `audio`."""

    conversation_id: str | None = Field(None, pattern=CONVERSATION_ID)
    user: str | None = Field(None, min_length=1, max_length=256)
    language: str | None = None
    domain: str | None = None
    reply: list[Literal["text", "audio"]] = Field(["text"], min_length=1)
    format: AudioFormat = "wav"
    voice: str | None = None
    consent: Consent | None = None
    seed: int | None = Field(None, ge=0, lt=1 << 63)


class ConverseRequest(ConverseOptions):
    """An empty `text` is silence: the policy's no-input. The greeting comes before any utterance
    when `text` is null."""

    text: str | None = None


class Button(BaseModel):
    """`title` is shown; `text` is what pressing it says."""

    title: str
    text: str


class Reply(BaseModel):
    """`audio` is base64 of a whole file of `format`."""

    text: str
    audio: str | None = None
    format: AudioFormat | None = None
    sample_rate: int | None = None
    buttons: list[list[Button]] = Field(default_factory=list)
    voice: str | None = None


class DialogueState(BaseModel):
    """What a caller may see of the state: the flow that runs, its slots, what is asked for."""

    flow: str | None = None
    slots: dict[str, Any] = Field(default_factory=dict)
    asking: str | None = None
    handed_over: str | None = None


class Turn(BaseModel):
    """Timings in seconds; `degraded` names the parts that did not do their share."""

    turn_id: str
    conversation_id: str
    domain: str
    language: str
    transcript: Transcript | None
    understanding: Understanding | None
    state: DialogueState
    reply: Reply
    steps: list[str]
    timings: dict[str, float]
    versions: dict[str, str]
    variants: dict[str, str] = Field(default_factory=dict)
    degraded: list[str] = Field(default_factory=list)


class FeedbackRequest(BaseModel):
    turn_id: str = Field(min_length=1, max_length=64)
    rating: Literal[-1, 1]
    corrected_transcript: str | None = Field(None, max_length=4000)
    corrected_intent: str | None = Field(None, max_length=200)
    corrected_entities: list[Entity] | None = Field(None, max_length=100)
    comment: str | None = Field(None, max_length=4000)


class StoredTurn(BaseModel):
    """`utterance` and `reply` are null once their retention has passed."""

    turn_id: str
    at: str
    language: str
    utterance: str | None
    intent: str | None
    confidence: float | None
    reply: str | None
    steps: list[str]
    degraded: list[str]


class StoredConversation(BaseModel):
    conversation_id: str
    domain: str
    consent: Consent
    created_at: str
    turns: list[StoredTurn]
