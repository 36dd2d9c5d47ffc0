"""What a turn asks of the services: each call timed, its version noted, its failure survived."""

from __future__ import annotations

import logging
import time
import uuid
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import BaseModel

from govor.bodies import Upload
from govor.clients import Outgoing, Siblings
from govor.config import Consent
from govor.errors import DeadlineExceeded, GovorError, Unprocessable
from govor.schemas.generation import GenerateRequest, Generation
from govor.schemas.nlu import Understanding, UnderstandRequest
from govor.schemas.stt import TranscribeOptions, Transcript
from govor.schemas.tts import SynthesizeRequest
from govor.schemas.turn import ConverseRequest
from services.gateway import actions
from services.gateway.dialogue import Generate
from services.gateway.settings import GatewaySettings
from services.gateway.speech import Emit as EmitAudio
from services.gateway.speech import Speaker

log = logging.getLogger(__name__)

_WRONG_AUDIO = (400, 413, 415, 422)
"""What stt says of audio that is none, too long or too large: the caller's to know."""

Emit = Callable[[str, BaseModel | Mapping[str, Any]], Awaitable[None]]
"""Told of each event of a turn: its name and data."""


@dataclass(frozen=True)
class Asked:
    """A turn as it was asked for. Neither text nor audio: the bot speaks first.

    `deadline` is a `time.monotonic()`, `hurried` says that it is sooner than we promise to answer,
    `subject` is the keyed digest of `user`.
    """

    request: ConverseRequest
    audio: Upload | None
    request_id: str
    deadline: float
    hurried: bool = False
    subject: str | None = None
    user: str | None = None
    traceparent: str | None = None
    turn_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass
class Errands:
    """The calls of one turn, in one language about one pack.

    `timings` are seconds by stage, `versions` who answered, `degraded` who did not.
    """

    settings: GatewaySettings
    siblings: Siblings
    webhooks: httpx.AsyncClient
    asked: Asked
    domain: str
    language: str
    conversation_id: str
    consent: Consent
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    degraded: list[str] = field(default_factory=list)

    async def transcribe(self, audio: Upload) -> Transcript | None:
        """None when nobody could; raises what stt says of audio that is none."""
        options = TranscribeOptions(**self._about())
        kind = audio.content_type or "application/octet-stream"
        outgoing = self.outgoing(self.settings.gateway_stt_timeout_seconds)
        try:
            with self.timed("stt"):
                found = await self.siblings.stt.transcribe(audio.data, kind, options, outgoing)
        except GovorError as error:
            if error.status in _WRONG_AUDIO:
                raise
            self.degrade("stt", error)
            return None
        self.versions["stt"] = f"{found.model}:{found.version}"
        return found

    async def understand(self, text: str) -> Understanding | None:
        """None when nobody could."""
        request = UnderstandRequest(text=text, **self._about())
        outgoing = self.outgoing(self.settings.gateway_nlu_timeout_seconds)
        try:
            with self.timed("nlu"):
                found = await self.siblings.nlu.understand(request, outgoing)
        except GovorError as error:
            self.degrade("nlu", error)
            return None
        self.versions["nlu"] = f"{found.model}:{found.version}"
        return found

    async def write(self, step: Generate, seed: int) -> str | None:
        """A text of the generator; None when there is none."""
        try:
            with self.timed("generate"):
                made = await self._write(step, seed)
        except GovorError as error:
            self.degrade("generator", error)
            return None
        self.versions["generator"] = f"{made.model}:{made.version}"
        return made.text

    async def _write(self, step: Generate, seed: int) -> Generation:
        """By those of the fields that the model has; a model that has none gets the prompt."""
        fields = dict(step.fields)
        while fields or step.prompt is None:
            try:
                return await self._generate(seed=seed, fields=fields)
            except Unprocessable as error:
                unknown = (error.param or "").removeprefix("fields.")
                if error.code != "unknown_field" or fields.pop(unknown, None) is None:
                    raise
        return await self._generate(seed=seed, prompt=step.prompt)

    async def _generate(self, **asked: Any) -> Generation:
        outgoing = self.outgoing(self.settings.gateway_generator_timeout_seconds)
        request = GenerateRequest(**asked, **self._about())
        return await self.siblings.generator.generate(request, outgoing)

    async def act(
        self, url: str | None, timeout: float, call: actions.Call
    ) -> actions.Answer | None:
        """What an action server answers; None when it does not."""
        try:
            if url is None:
                raise actions.ActionFailed(f"{call.action}: no action server is configured")
            outgoing = self.outgoing(timeout)
            with self.timed("action"):
                return await actions.run(self.webhooks, url, call, outgoing.timeout)
        except actions.ActionFailed as error:
            self.degrade("action", error)
            return None

    def speak(self, voice: str | None, emit: Emit | None) -> Speaker:
        """Begins the spoken reply; its chunks are `audio.delta` events."""
        request = SynthesizeRequest(
            text=".",  # each piece brings its own
            voice=voice,
            format=self.asked.request.format,
            **self._about(),
        )
        longest = self.settings.gateway_tts_timeout_seconds
        return Speaker(
            self.siblings.tts,
            request,
            lambda: self.outgoing(longest),
            _audio_events(emit, request.format),
        )

    async def spoken(self, speaker: Speaker, since: float) -> None:
        """Waits for the end of the speech. Raises what tts says of a voice that was asked for."""
        await speaker.finish()
        self.timings["tts"] = speaker.busy
        if speaker.first_audio is not None:
            self.timings["first_audio"] = speaker.first_audio - since
        if speaker.version is not None:
            self.versions["tts"] = speaker.version
        if speaker.failed is not None:
            if speaker.failed.status < 500 and self.asked.request.voice:
                raise speaker.failed
            self.degrade("tts", speaker.failed)

    def outgoing(self, longest: float) -> Outgoing:
        """What goes with a call; raises `DeadlineExceeded` when no time is left for one."""
        left = self.asked.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded("the deadline passed during the turn")
        return Outgoing(
            self.asked.request_id,
            min(longest, left),
            user=self.asked.user,
            traceparent=self.asked.traceparent,
            consent=self.consent,
            turn_id=self.asked.turn_id,
        )

    def degrade(self, part: str, error: Exception) -> None:
        log.warning("the turn goes on without %s: %s", part, error)
        if part not in self.degraded:
            self.degraded.append(part)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.timings[stage] = self.timings.get(stage, 0.0) + time.perf_counter() - began

    def _about(self) -> dict[str, Any]:
        return {
            "domain": self.domain,
            "language": self.language,
            "conversation_id": self.conversation_id,
        }


def _audio_events(emit: Emit | None, kind: str) -> EmitAudio | None:
    if emit is None:
        return None

    async def tell(chunk: bytes, rate: int) -> None:
        audio = b64encode(chunk).decode()
        await emit("audio.delta", {"audio": audio, "format": kind, "sample_rate": rate})

    return tell
