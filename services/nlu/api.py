"""The route of the understanding service."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict

from fastapi import FastAPI

from govor.errors import Unprocessable
from govor.model_service import headers_of
from govor.repository import Version
from govor.schemas.nlu import Entity, Intent, Understanding, Understandings, UnderstandRequest
from govor.verbs import Call, verb
from services.nlu.backends import Parsed
from services.nlu.settings import NluSettings


def add_routes(app: FastAPI, settings: NluSettings) -> None:
    models = app.state.models

    async def understand(call: Call) -> None:
        """Says what an utterance, or each of up to 256, wants in a domain, and the values it names.

        The language is told by the script when the request does not name it. `out_of_scope`: no
        intent is above the head's threshold, `intent.name` is null, and `intent.confidence` is
        that of the likeliest one.
        """
        since = time.monotonic()
        request = await call.parse(UnderstandRequest)
        texts = [request.text] if request.text is not None else request.texts or []
        _check_lengths(texts, settings.max_text_chars)
        domain = models.check_domain(request.domain)
        async with models.acquire(call, request.model or "nlu", request.version) as lease:
            parsed = await call.until_disconnect(
                lease.model.understand(texts, domain, request.language, call.deadline)
            )
        seconds = time.monotonic() - since
        results = [
            _understanding(text, item, lease.version, seconds)
            for text, item in zip(texts, parsed, strict=True)
        ]
        await call.send_json(
            results[0] if request.text is not None else Understandings(results=results),
            headers=headers_of(lease.version),
        )
        for result in results:
            models.record(
                call,
                lease.version,
                language=result.language,
                input=result.text,
                output=json.dumps([e.model_dump() for e in result.entities], ensure_ascii=False),
                intent=result.intent.name,
                confidence=result.intent.confidence,
                conversation_id=request.conversation_id,
                timings=result.timings,
            )

    verb(
        app,
        "/v1/understand",
        understand,
        model="nlu",
        summary="The intent and the entities of an utterance, or of a batch",
        request=UnderstandRequest,
        answers={"application/json": Understanding},
        headers={"X-Model": "who answered", "X-Model-Version": "its version"},
        examples={"application/json": {"text": "what do the stars say for leo tomorrow"}},
    )


def _check_lengths(texts: Sequence[str], limit: int) -> None:
    for text in texts:
        if len(text) > limit:
            raise Unprocessable(
                f"the text has {len(text)} characters, at most {limit}",
                code="text_too_long",
                param="text" if len(texts) == 1 else "texts",
            )


def _understanding(text: str, parsed: Parsed, version: Version, seconds: float) -> Understanding:
    ranking = [Intent(name=name, confidence=confidence) for name, confidence in parsed.ranking]
    confidence = ranking[0].confidence if ranking else 0.0
    name = None if parsed.out_of_scope else ranking[0].name
    return Understanding(
        text=text,
        language=parsed.language,
        intent=Intent(name=name, confidence=confidence),
        intent_ranking=ranking,
        entities=[Entity(**asdict(found)) for found in parsed.entities],
        out_of_scope=parsed.out_of_scope,
        model=version.model,
        version=version.number,
        timings={"total": seconds},
    )
