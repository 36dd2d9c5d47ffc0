"""Wire types of `/v1/generate`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator


class Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class GenerateRequest(BaseModel):
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1, max_length=100)
    fields: dict[str, str] | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.8, ge=0, le=2)
    top_p: float = Field(0.9, ge=0, le=1)
    top_k: int = Field(0, ge=0, le=1000)
    repetition_penalty: float = Field(1.0, ge=0.5, le=2)
    no_repeat_ngram: int = Field(0, ge=0, le=20)
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    stop: list[str] = Field(default_factory=list, max_length=8)
    n: int = Field(1, ge=1, le=4)
    stream: bool = False
    language: str | None = None
    domain: str | None = None
    model: str | None = None
    version: int | None = None
    conversation_id: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _stop_list(cls, data: object) -> object:
        if isinstance(data, dict) and isinstance(data.get("stop"), str):
            return data | {"stop": [data["stop"]]}
        return data

    @model_validator(mode="after")
    def _one_of(self) -> GenerateRequest:
        given = sum(x is not None for x in (self.prompt, self.messages, self.fields))
        if given != 1:
            raise ValueError("give exactly one of prompt, messages and fields")
        return self


FinishReason = Literal["stop", "length"]


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class Choice(BaseModel):
    index: int
    text: str
    finish_reason: FinishReason


class Generation(BaseModel):
    """`text` is the first choice; `choices` is there when more than one was asked for."""

    id: str
    text: str
    choices: list[Choice] | None = None
    finish_reason: FinishReason
    usage: Usage
    model: str
    version: int
    timings: dict[str, float]


class Delta(BaseModel):
    """One SSE `delta` event: text to append to choice `index`."""

    index: int = 0
    text: str
