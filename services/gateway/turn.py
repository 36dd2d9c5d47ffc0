"""One turn of a conversation: transcript -> understanding -> policy -> reply -> speech.

A service that is down or late degrades its own share, visibly: no tts, text alone; no generator,
the flow's `else:`; no nlu, the reply for what is not understood; no stt, a request to come again.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from govor.clients import Siblings
from govor.domains import Pack
from govor.errors import NotFound
from govor.metrics import Metrics
from govor.schemas.nlu import Understanding
from govor.schemas.stt import Transcript
from govor.schemas.turn import Button, Reply, StoredTurn, Turn
from govor.text import language_of
from services.gateway import actions, policy
from services.gateway.conversations import Conversations
from services.gateway.dialogue import (
    Act,
    Deaf,
    Done,
    Event,
    Failed,
    Generate,
    Handoff,
    Heard,
    Say,
    Silence,
    Started,
    State,
    Step,
    label,
)
from services.gateway.errands import Asked, Emit, Errands
from services.gateway.packs import Packs
from services.gateway.rows import Conversation
from services.gateway.settings import GatewaySettings
from services.gateway.speech import Speaker

PARTS = ("stt", "nlu", "generator", "tts", "action")
"""What a turn may have to go on without."""


@dataclass(frozen=True)
class Turns:
    """Takes turns: what they share."""

    settings: GatewaySettings
    packs: Packs
    conversations: Conversations
    siblings: Siblings
    webhooks: httpx.AsyncClient
    metrics: Metrics

    def __post_init__(self) -> None:
        for domain in self.packs.names():
            self.metrics.begin_turns(domain, PARTS)

    async def take(self, asked: Asked, emit: Emit | None) -> Turn:
        """The whole turn, saved; `emit` is told of it as it goes.

        Raises `NotFound` for an unknown domain or language, `Conflict` from the conversation, what
        stt says of audio that is none and tts of a voice, `DeadlineExceeded`.
        """
        since = time.perf_counter()
        request = asked.request
        begun = self.packs.get(request.domain or self.packs.default)
        async with self.conversations.open(
            request.conversation_id,
            subject=asked.subject,
            domain=request.domain,
            default_domain=self.packs.default,
            consent=request.consent,
            deadline=asked.deadline,
            begun_consent=begun.consent,
        ) as conversation:
            pack = self.packs.get(conversation.domain)
            language = _language(pack, asked, conversation.language)
            errands = self._errands(asked, conversation, language)
            turn = await _OneTurn(self, pack, conversation, errands, emit, since).take()
        self._count(turn, asked)
        return turn

    async def again(self, first: Turn, asked: Asked, emit: Emit | None) -> Turn:
        """A turn that was taken before, told again; its audio is made from the text."""
        since = time.perf_counter()
        errands = Errands(
            self.settings,
            self.siblings,
            self.webhooks,
            asked,
            first.domain,
            first.language,
            first.conversation_id,
            "answer",  # the narrowest: which one was given is not known any more
        )
        if emit:
            await _tell_again(first, emit)
        if "audio" not in asked.request.reply or not first.reply.text:
            return first
        speaker = errands.speak(first.reply.voice, emit)
        try:
            speaker.say(first.reply.text)
            await errands.spoken(speaker, since)
        finally:
            await speaker.stop()
        reply = first.reply.model_copy(update=_audio(speaker))
        versions = first.versions | errands.versions
        return first.model_copy(update={"reply": reply, "versions": versions})

    def _errands(self, asked: Asked, conversation: Conversation, language: str) -> Errands:
        return Errands(
            self.settings,
            self.siblings,
            self.webhooks,
            asked,
            conversation.domain,
            language,
            conversation.id,
            conversation.consent,
        )

    def _count(self, turn: Turn, asked: Asked) -> None:
        self.metrics.observe_turn(turn.timings)
        self.metrics.turns.labels(turn.domain, "api").inc()
        if turn.understanding:
            intent = turn.understanding.intent.name or "none"
            self.metrics.intents.labels(turn.domain, intent).inc()
        for part in [] if asked.hurried else turn.degraded:
            self.metrics.degraded.labels(part).inc()


@dataclass
class _OneTurn:
    """A turn under way: what has been learnt and said so far."""

    shared: Turns
    pack: Pack
    conversation: Conversation
    errands: Errands
    emit: Emit | None
    since: float
    transcript: Transcript | None = None
    understanding: Understanding | None = None
    state: State = field(default_factory=State)
    acted: bool = False
    said: list[str] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    buttons: list[list[Button]] = field(default_factory=list)
    speaker: Speaker | None = None

    async def take(self) -> Turn:
        request = self.errands.asked.request
        self.state = State.model_validate(self.conversation.state)
        event = await self.listen()
        if "audio" in request.reply:
            self.speaker = self.errands.speak(self.voice, self.emit)
        try:
            await self.answer(event)
            if self.speaker:
                await self.errands.spoken(self.speaker, self.since)
        except asyncio.CancelledError:
            # Nobody waits for the answer, but what an action did has happened.
            if self.acted:
                await self.save()
            raise
        finally:
            if self.speaker:
                await self.speaker.stop()
        await self.save()
        return self.turn()

    async def listen(self) -> Event:
        """What happened, as an event for the policy: the utterance, transcribed and understood."""
        text, clear = self.errands.asked.request.text, True
        if self.errands.asked.audio is not None:
            self.transcript = await self.errands.transcribe(self.errands.asked.audio)
            if self.transcript is None:
                return Deaf()
            if self.emit:
                await self.emit("transcript.final", self.transcript)
            text = self.transcript.text
            clear = self.transcript.confidence >= self.pack.thresholds.transcript
        if text is None:
            return Started()
        if not text.strip():
            return Silence()
        text = policy.spoken(self.pack, text, self.errands.language)
        if policy.needs_understanding(self.pack, text):
            self.understanding = await self.errands.understand(text)
            if self.emit and self.understanding:
                await self.emit("understanding", self.understanding)
        return Heard(text, self.understanding, clear)

    async def answer(self, event: Event | None) -> None:
        """Does what the policy says, and tells it how that went, until it says no more."""
        while event is not None:
            with self.errands.timed("policy"):
                self.state, steps = policy.advance(
                    self.pack,
                    self.state,
                    event,
                    language=self.errands.language,
                    now=time.time(),
                    seed=self.seed,
                )
            event = None
            for step in steps:
                self.steps.append(label(step))
                event = await self.do(step)

    async def do(self, step: Step) -> Event | None:
        match step:
            case Say():
                self.buttons = step.buttons or self.buttons
                await self.say(step.text)
                return None
            case Generate():
                text = await self.errands.write(step, self.seed)
                if text is None:
                    return Failed()
                await self.say(text)
                return Done(texts=(text,))
            case Act():
                actions_at = self.pack.actions
                url = self.shared.settings.gateway_actions_url or actions_at.url
                return await self.act(step.name, url, actions_at.timeout_seconds)
            case Handoff():
                desk = self.pack.handoffs[step.name]
                if desk.url is None:
                    return Done()  # the channel acts on `handed_over`
                return await self.act(f"handoff_{step.name}", desk.url, desk.timeout_seconds)

    async def say(self, text: str) -> None:
        if self.emit:
            await self.emit("reply.delta", {"text": f" {text}" if self.said else text})
        self.said.append(text)
        if self.speaker:
            self.speaker.say(text)

    async def act(self, name: str, url: str | None, timeout: float) -> Event:
        self.acted = True
        found = self.understanding
        call = actions.Call(
            action=name,
            conversation_id=self.conversation.id,
            slots=self.state.slots,
            language=self.errands.language,
            text=self.state.heard,
            intent=found.intent.name if found else None,
            confidence=found.intent.confidence if found else 0.0,
            entities=[entity.model_dump() for entity in found.entities] if found else [],
        )
        answer = await self.errands.act(url, timeout, call)
        if answer is None:
            return Failed()
        return Done(answer.slots, tuple(answer.texts), tuple(answer.replies))

    async def save(self) -> None:
        self.conversation.state = self.state.model_dump(mode="json")
        self.conversation.language = self.errands.language
        asked, intent = self.errands.asked, self.understanding and self.understanding.intent
        stored = StoredTurn(
            turn_id=self.errands.asked.turn_id,
            at=datetime.now(UTC).isoformat(),
            language=self.errands.language,
            utterance=self.transcript.text if self.transcript else asked.request.text,
            intent=intent.name if intent else None,
            confidence=intent.confidence if intent else None,
            reply=" ".join(self.said),
            steps=self.steps,
            degraded=self.errands.degraded,
        )
        await self.shared.conversations.save(self.conversation, stored)

    def turn(self) -> Turn:
        self.errands.timings["total"] = time.perf_counter() - self.since
        reply = Reply(text=" ".join(self.said), buttons=self.buttons, voice=self.voice)
        if self.speaker:
            reply = reply.model_copy(update=_audio(self.speaker))
        return Turn(
            turn_id=self.errands.asked.turn_id,
            conversation_id=self.conversation.id,
            domain=self.pack.name,
            language=self.errands.language,
            transcript=self.transcript,
            understanding=self.understanding,
            state=policy.shown(self.pack, self.state),
            reply=reply,
            steps=self.steps,
            timings={name: round(value, 6) for name, value in self.errands.timings.items()},
            versions={
                "pack": f"{self.pack.name}:{self.pack.digest[:12]}",
                **self.errands.versions,
            },
            degraded=self.errands.degraded,
        )

    @property
    def voice(self) -> str | None:
        return self.errands.asked.request.voice or self.pack.voices.get(self.errands.language)

    @property
    def seed(self) -> int:
        """Asked for, or the turn's own: another text each time, the same in a replay."""
        turn = f"{self.conversation.id} {self.conversation.version}"
        asked = self.errands.asked.request.seed
        return zlib.crc32(turn.encode()) if asked is None else asked


def _language(pack: Pack, asked: Asked, known: str | None) -> str:
    """Explicit; else by the script of the text; else the conversation's; else the pack's first."""
    language = asked.request.language
    if language is None:
        default = known if known in pack.languages else pack.languages[0]
        return language_of(asked.request.text or "", pack.languages, default)
    if language not in pack.languages:
        raise NotFound(
            f"the domain {pack.name!r} does not speak {language!r}",
            code="language_not_found",
            param="language",
        )
    return language


def _audio(speaker: Speaker) -> dict[str, object]:
    audio = speaker.audio
    if audio is None:
        return {}
    return {
        "audio": b64encode(audio).decode(),
        "format": speaker.format,
        "sample_rate": speaker.sample_rate,
    }


async def _tell_again(first: Turn, emit: Emit) -> None:
    if first.transcript:
        await emit("transcript.final", first.transcript)
    if first.understanding:
        await emit("understanding", first.understanding)
    await emit("reply.delta", {"text": first.reply.text})
