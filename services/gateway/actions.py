"""Actions by webhook: Rasa's action-server protocol.

`POST <url>` with `{next_action, sender_id, tracker, domain, version}`; the answer's `slot` events
set slots and its `responses` are said. Bot servers written for Rasa work as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_ANSWER_BYTES = 1 << 20
MAX_RESPONSES = 10


class ActionFailed(Exception):
    """The server is away, slow, refused the action or answered something else than the protocol."""


@dataclass(frozen=True)
class Call:
    """What the server is told: which action, and what the policy keeps of the conversation."""

    action: str
    conversation_id: str
    slots: Mapping[str, Any]
    language: str
    text: str = ""
    intent: str | None = None
    confidence: float = 0.0
    entities: list[dict[str, Any]] = field(default_factory=list)


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore")

    event: str
    name: str | None = None
    value: Any = None


class _Response(BaseModel):
    """`response` (`template` in older servers) names a reply of the pack; `text` is said as is."""

    model_config = ConfigDict(extra="ignore")

    text: str | None = Field(None, max_length=4000)
    response: str | None = None
    template: str | None = None


class _Answer(BaseModel):
    events: list[_Event] = Field(default_factory=list)
    responses: list[_Response] = Field(default_factory=list, max_length=MAX_RESPONSES)


@dataclass(frozen=True)
class Answer:
    """`texts` are said as they are, never read as templates; `replies` are names in the pack."""

    slots: dict[str, Any]
    texts: list[str]
    replies: list[str]


async def run(client: httpx.AsyncClient, url: str, call: Call, timeout: float) -> Answer:
    """The action's answer; `ActionFailed` with the reason (a status or a kind of trouble)."""
    try:
        # Not retried: nobody knows whether the first attempt had its effect.
        async with client.stream("POST", url, json=_request(call), timeout=timeout) as response:
            if response.status_code != 200:
                raise ActionFailed(
                    f"{call.action}: the action server answered {response.status_code}"
                )
            body = await _read(response)
        answer = _Answer.model_validate(json.loads(body))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ActionFailed(f"{call.action}: {type(error).__name__}") from error
    except (ValueError, ValidationError, RecursionError) as error:
        raise ActionFailed(f"{call.action}: not an answer of an action server") from error
    named = [event for event in answer.events if event.event == "slot" and event.name]
    return Answer(
        slots={str(event.name): event.value for event in named},
        texts=[r.text for r in answer.responses if r.text],
        replies=[
            name for r in answer.responses if not r.text and (name := r.response or r.template)
        ],
    )


def _request(call: Call) -> dict[str, Any]:
    return {
        "next_action": call.action,
        "sender_id": call.conversation_id,
        "tracker": {
            "sender_id": call.conversation_id,
            "slots": {**call.slots, "language": call.language},
            "latest_message": {
                "text": call.text,
                "intent": {"name": call.intent, "confidence": call.confidence},
                "entities": call.entities,
            },
            "latest_input_channel": "govor",
            "events": [],
            "paused": False,
            "active_loop": {},
        },
        "domain": {},
        "version": "3.1",
    }


async def _read(response: httpx.Response) -> bytes:
    body = b""
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise ValueError("the answer is too large")
    return body
