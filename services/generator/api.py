"""The route of the generator: reads a request, lets a version draw, answers whole or as drawn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI

from govor.errors import InternalError, Unprocessable
from govor.model_service import headers_of
from govor.repository import Version
from govor.schemas.generation import Choice, Delta, GenerateRequest, Generation, Usage
from govor.verbs import Call, verb
from services.generator.backends import Backend, Finish, Piece
from services.generator.backends.prompts import Asked, Declared, said
from services.generator.backends.sampling import Sampling
from services.generator.reading import reader_of
from services.generator.settings import GeneratorSettings


@dataclass
class Drawing:
    """What a version has drawn for one request so far."""

    version: Version
    since: float = field(default_factory=time.monotonic)
    texts: dict[int, str] = field(default_factory=dict)
    finishes: dict[int, Finish] = field(default_factory=dict)

    def add(self, piece: Piece) -> None:
        self.texts[piece.index] = self.texts.get(piece.index, "") + piece.text
        if piece.finish is not None:
            self.finishes[piece.index] = piece.finish

    def generation(self) -> Generation:
        """The whole answer. Raises `InternalError` (`generation_failed`) for an empty text, unless
        the caller's own stop string left nothing of it."""
        for index, finish in self.finishes.items():
            if not self.texts[index].strip() and not finish.stopped:
                raise InternalError("the model drew an empty text", code="generation_failed")
        choices = [
            Choice(index=index, text=self.texts[index], finish_reason=self.finishes[index].reason)
            for index in sorted(self.finishes)
        ]
        first = self.finishes[0]
        drawn = sum(finish.completion_tokens for finish in self.finishes.values())
        return Generation(
            id=secrets.token_hex(16),
            text=choices[0].text,
            choices=choices if len(choices) > 1 else None,
            finish_reason=choices[0].finish_reason,
            usage=Usage(prompt_tokens=first.prompt_tokens, completion_tokens=drawn),
            model=self.version.model,
            version=self.version.number,
            timings={
                "queue": first.queue_seconds,
                "first_token": first.first_token_seconds,
                "total": time.monotonic() - self.since,
            },
        )


def add_routes(app: FastAPI, settings: GeneratorSettings) -> None:
    models = app.state.models

    async def generate(call: Call) -> None:
        """Draws texts from a prompt, messages, or the fields that the model version declares.

        Of a prompt or messages a version with fields reads the entities of the pack `domain`; what
        is missing takes its default, and what has none is drawn by the seed. The same seed draws
        the same text, whatever else runs.

        Without `stream` a text is cleaned, and drawn again (four times at most) when it fails the
        version's filter. With `stream` it leaves as it is drawn, in `delta` events, and `done`
        holds the whole; an error after the first event is an `error` event. An empty text is the
        error 500 `generation_failed`.
        """
        request = await call.parse(GenerateRequest)
        _check_limits(request, settings)
        pack = settings.domains_folder / models.check_domain(request.domain)
        async with models.acquire(call, request.model or "generator", request.version) as lease:
            asked = await _asked(request, lease.model.fields, pack)
            drawing = Drawing(lease.version)
            answer = _stream if request.stream else _whole
            generation = await answer(call, request, lease.model, asked, drawing)
        fields = dict(asked.fields or {})
        models.record(
            call,
            drawing.version,
            id=generation.id,
            language=fields.get("language", request.language),
            input=said(request.prompt, request.messages) or json.dumps(fields, ensure_ascii=False),
            output=generation.text,
            conversation_id=request.conversation_id,
            timings=generation.timings,
        )

    verb(
        app,
        "/v1/generate",
        generate,
        model="generator",
        summary="Draw a text, whole or as a stream of events",
        request=GenerateRequest,
        answers={
            "application/json": Generation,
            "text/event-stream": {"type": "string", "description": "`delta` ..., then `done`"},
        },
        headers={"X-Model": "who answered", "X-Model-Version": "its version"},
        examples={
            "application/json": {"fields": {"language": "en", "sign": "leo"}, "seed": 7, "n": 1}
        },
    )


async def _whole(
    call: Call, request: GenerateRequest, model: Backend, asked: Asked, drawing: Drawing
) -> Generation:
    texts = model.generate(asked, _sampling(request), request.n, call.deadline)
    for piece in await call.until_disconnect(texts):
        drawing.add(piece)
    generation = drawing.generation()
    await call.send_json(generation, headers=headers_of(drawing.version))
    return generation


async def _stream(
    call: Call, request: GenerateRequest, model: Backend, asked: Asked, drawing: Drawing
) -> Generation:
    """The answer begins with the first piece: until then an error is a plain one."""
    texts = model.stream(asked, _sampling(request), request.n, call.deadline)
    async with contextlib.aclosing(texts) as pieces:
        piece = await call.until_disconnect(anext(pieces, None))
        await call.start("text/event-stream", headers=headers_of(drawing.version))
        while piece is not None:
            drawing.add(piece)
            if piece.text:
                await call.event("delta", Delta(index=piece.index, text=piece.text))
            piece = await anext(pieces, None)
    generation = drawing.generation()
    await call.event("done", generation)
    return generation


def _check_limits(request: GenerateRequest, settings: GeneratorSettings) -> None:
    if request.max_tokens is not None and request.max_tokens > settings.max_new_tokens:
        raise Unprocessable(
            f"max_tokens is {request.max_tokens}, at most {settings.max_new_tokens}",
            code="max_tokens_too_large",
            param="max_tokens",
        )
    chars = len(request.prompt or "") + sum(len(m.content) for m in request.messages or ())
    if chars > settings.max_text_chars:
        raise Unprocessable(
            f"the text has {chars} characters, at most {settings.max_text_chars}",
            code="text_too_long",
            param="messages" if request.messages else "prompt",
        )


async def _asked(request: GenerateRequest, declared: Declared, pack: Path) -> Asked:
    """The request in the version's terms: its fields, if it declares any, else the text."""
    if request.fields is not None:
        language = {"language": request.language} if request.language else {}
        given = language if "language" in declared else {}
        return Asked(fields={**given, **request.fields})
    if not declared:
        return Asked(request.prompt, request.messages)
    text = said(request.prompt, request.messages)
    reader = await asyncio.to_thread(reader_of, pack)
    return Asked(fields=await asyncio.to_thread(reader.fields, text, declared, request.language))


def _sampling(request: GenerateRequest) -> Sampling:
    return Sampling(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        repetition_penalty=request.repetition_penalty,
        no_repeat_ngram=request.no_repeat_ngram,
        stop=tuple(request.stop),
        seed=secrets.randbits(63) if request.seed is None else request.seed,
    )
