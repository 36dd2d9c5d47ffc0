"""The routes of the gateway: read the request, take the turn, answer whole or as it comes."""

from __future__ import annotations

import hashlib
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel

from govor.bodies import Upload
from govor.errors import InvalidRequest, PayloadTooLarge, Unprocessable
from govor.keys import Principal, subject_of
from govor.schemas.turn import (
    ConverseOptions,
    ConverseRequest,
    FeedbackRequest,
    StoredConversation,
    Turn,
)
from govor.service import speaker
from govor.verbs import Call, verb
from services.gateway.errands import Asked
from services.gateway.idempotency import Claim, Idempotency
from services.gateway.settings import GatewaySettings
from services.gateway.turn import Turns


class Domain(BaseModel):
    """A pack: `digest` tells its versions apart."""

    name: str
    languages: list[str]
    description: dict[str, str]
    digest: str


class Domains(BaseModel):
    default: str
    domains: list[Domain]


class Accepted(BaseModel):
    turn_id: str


def add_routes(app: FastAPI, turns: Turns, idempotency: Idempotency) -> None:
    for rating in ("-1", "1"):
        turns.metrics.feedback.labels(rating)

    async def converse(call: Call) -> None:
        """One turn: `{text}`, or a form with `audio`. The bot speaks first when there is neither.

        A `conversation_id` goes on with a conversation, or begins one. `degraded` in the answer
        names the services that did not do their share. With `Accept: text/event-stream` the events
        `transcript.final`, `understanding`, `reply.delta` (text to append), `audio.delta` (base64
        of the next bytes of one stream in the asked `format`) and `done` (the turn without audio)
        come as soon as there is something to tell.

        `X-Model` and `X-Model-Version` name the models that took part, in order of use, as
        `versions` does. A stream's head leaves before they are known: it has neither.
        """
        asked, digest = await _read(call, turns.settings)
        emit = call.event if call.wants_events() else None
        async with _claim(call, "converse", idempotency, digest) as claim:
            if claim.answer is not None:
                first = Turn.model_validate(claim.answer)
                turn = await call.until_disconnect(turns.again(first, asked, emit))
            else:
                turn = await call.until_disconnect(turns.take(asked, emit))
                claim.conversation_id = turn.conversation_id
                claim.answer = _mute(turn).model_dump(mode="json")
        if emit:
            await emit("done", _mute(turn))
        else:
            await call.send_json(turn, headers=_headers_of(turn))

    async def feedback(call: Call) -> None:
        """What a person thinks of a turn, and what would have been right."""
        request = await call.parse(FeedbackRequest)
        digest = _digest(request.model_dump_json().encode())
        async with _claim(call, "feedback", idempotency, digest) as claim:
            if claim.answer is None:
                await turns.conversations.feedback(request, call.principal.subject)
                turns.metrics.feedback.labels(str(request.rating)).inc()
                claim.answer = {"turn_id": request.turn_id}
        await call.send_json(Accepted(turn_id=request.turn_id), 202)

    verb(
        app,
        "/v1/converse",
        converse,
        summary="One turn of a conversation: speech or text in, text and speech out",
        request=ConverseRequest,
        media={"multipart/form-data": _form_schema()},
        answers={
            "application/json": Turn,
            "text/event-stream": {"type": "string", "description": "see the description"},
        },
        headers={
            "X-Model": "who answered, separated by commas; absent from a stream",
            "X-Model-Version": "their versions in the same order",
        },
        examples={"application/json": {"text": "What do the stars say for Leo today?"}},
    )
    verb(
        app,
        "/v1/feedback",
        feedback,
        status=202,
        summary="Rate a turn, or correct it",
        request=FeedbackRequest,
        answers={"application/json": Accepted},
        examples={"application/json": {"turn_id": "4f1c", "rating": 1}},
    )
    _add_conversations(app, turns, idempotency)


def _add_conversations(app: FastAPI, turns: Turns, idempotency: Idempotency) -> None:
    @app.get("/v1/conversations/{conversation_id}", tags=["gateway"])
    async def get_conversation(
        conversation_id: str, subject: Annotated[str | None, Depends(_subject)]
    ) -> StoredConversation:
        """The turns of a conversation, as far as they are kept; its own person's only."""
        return await turns.conversations.get(conversation_id, subject)

    @app.delete("/v1/conversations/{conversation_id}", status_code=204, tags=["gateway"])
    async def delete_conversation(
        conversation_id: str, subject: Annotated[str | None, Depends(_subject)]
    ) -> Response:
        """Removes all that is kept of a conversation."""
        await turns.conversations.delete(conversation_id, subject)
        idempotency.forget(conversation_id)
        return Response(status_code=204)

    @app.get("/v1/domains", tags=["gateway"], dependencies=[Depends(speaker)])
    async def list_domains() -> Domains:
        """What this bot can talk about."""
        packs = (turns.packs.get(name) for name in turns.packs.names())
        return Domains(
            default=turns.packs.default,
            domains=[
                Domain(
                    name=pack.name,
                    languages=list(pack.languages),
                    description=pack.description,
                    digest=pack.digest,
                )
                for pack in packs
            ],
        )


def _subject(request: Request, _: Annotated[Principal, Depends(speaker)]) -> str | None:
    """The person whom the caller speaks for, as `Call.speaker` has it for verbs."""
    user = request.headers.get("x-user-id")
    if user is None:
        return None
    if not 0 < len(user) <= 256:
        raise InvalidRequest("a user id has 1 to 256 characters", param="X-User-ID")
    return subject_of(user, request.app.state.subject_secret)


async def _read(call: Call, settings: GatewaySettings) -> tuple[Asked, str]:
    """The request, and the digest of what it says."""
    audio: Upload | None = None
    if call.content_type == "application/json":
        request = await call.parse(ConverseRequest)
    else:
        fields, files = await call.form(settings.max_audio_bytes + settings.max_json_bytes)
        request = call.options(ConverseRequest, fields)
        audio = files.get("audio")
        if (audio is None) == (request.text is None):
            raise Unprocessable("a form has either audio or text", param="audio")
    _check_limits(request, audio, settings)
    if request.user is not None:
        call.speaker(request.user)
    asked = Asked(
        request=request,
        audio=audio,
        request_id=call.request_id,
        deadline=call.deadline,
        hurried=call.hurried,
        subject=call.principal.subject,
        user=call.user,
        traceparent=call.headers.get("traceparent"),
    )
    return asked, _digest(request.model_dump_json().encode(), audio.data if audio else b"")


def _check_limits(
    request: ConverseRequest, audio: Upload | None, settings: GatewaySettings
) -> None:
    if audio is not None and len(audio.data) > settings.max_audio_bytes:
        raise PayloadTooLarge(
            f"the audio is over {settings.max_audio_bytes} bytes", code="audio_too_large"
        )
    if request.text is not None and len(request.text) > settings.max_text_chars:
        raise Unprocessable(
            f"text has {len(request.text)} characters, at most {settings.max_text_chars}",
            code="text_too_long",
            param="text",
        )


def _claim(
    call: Call, scope: str, idempotency: Idempotency, digest: str
) -> AbstractAsyncContextManager[Claim]:
    """The right to answer first under the caller's `Idempotency-Key`, if it sent one."""
    key = call.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= 255:
        raise InvalidRequest("an idempotency key has 1 to 255 characters", param="Idempotency-Key")
    whose = f"{call.principal.name} {call.principal.subject or ''}"
    return idempotency.begin(key, scope, whose, digest, call.deadline)


def _mute(turn: Turn) -> Turn:
    """The turn without its audio."""
    return turn.model_copy(update={"reply": turn.reply.model_copy(update={"audio": None})})


def _headers_of(turn: Turn) -> dict[str, str]:
    """Who answered, the pack left out; nobody in a turn that needed no model."""
    used = [who.rpartition(":") for part, who in turn.versions.items() if part != "pack"]
    if not used:
        return {}
    return {
        "X-Model": ", ".join(model for model, _, _ in used),
        "X-Model-Version": ", ".join(version for _, _, version in used),
    }


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(hashlib.sha256(part).digest())
    return whole.hexdigest()


def _form_schema() -> dict[str, Any]:
    """The JSON body's fields without `text`, and the recording."""
    schema = ConverseOptions.model_json_schema()
    recording = {"type": "string", "format": "binary", "description": "any container of speech"}
    return {"type": "object", "properties": {"audio": recording, **schema["properties"]}}
