"""One event of one conversation, worked on: flows run, slots are filled, words are chosen.

What an event means is the policy's business; this is what is done about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from govor.domains import Pack
from govor.domains.flows import Action, Collect, Confirm, End, If
from govor.domains.flows import Generate as GenerateStep
from govor.domains.flows import Handoff as HandoffStep
from govor.domains.flows import Say as SayStep
from govor.schemas.nlu import Entity
from services.gateway import frames, replies
from services.gateway.dialogue import (
    Act,
    Done,
    Failed,
    Frame,
    Generate,
    Handoff,
    Recent,
    Say,
    State,
    Step,
)

Effect = GenerateStep | Action | HandoffStep
"""The steps of a flow that need the world."""

_DEEPEST = 5  # flows that interrupt one another; the outermost is forgotten
_LONGEST = 200  # steps of a turn: no pack can loop, this is for what was not foreseen


def question(pack: Pack, state: State) -> Collect | Confirm | None:
    """What the bot has asked and waits for."""
    if not state.frames or not state.frames[-1].asked:
        return None
    step = frames.step_of(pack, state.frames[-1])
    return step if isinstance(step, Collect | Confirm) else None


class Talk:
    """A state that is being changed, and the steps so far."""

    def __init__(self, pack: Pack, state: State, language: str, rng: Random) -> None:
        self.pack, self.state, self.language, self.rng = pack, state, language, rng
        self.steps: list[Step] = []

    @property
    def asking(self) -> Collect | Confirm | None:
        return question(self.pack, self.state)

    @property
    def running(self) -> list[str]:
        return [frame.flow for frame in self.state.frames]

    def begin(self, now: float) -> None:
        """A new turn: what is too old is forgotten, what the last turn left undone is dropped."""
        state = self.state
        if state.turns and now - state.at > self.pack.forget_after:
            for name, value in State(drawn=state.drawn, said=state.said):
                setattr(state, name, value)
        state.began = state.began if state.turns else now
        state.turns, state.at = state.turns + 1, now
        while state.frames and not self.asking:
            self.leave()

    def say(self, reply: str, *, again: bool = False) -> None:
        self.steps.append(
            replies.words(self.pack, self.state, reply, self.language, self.rng, again=again)
        )

    # ---- slots

    def fill(self, entities: Sequence[Entity]) -> tuple[bool, bool]:
        """Fills the slots of the running flows, innermost first, and goes back to where a changed
        one was used. Whether a slot was named, and whether one was changed."""
        state, left = self.state, list(entities)
        named = changed = False
        for frame in reversed(state.frames):
            found = self.values(
                frame.flow, left, self.asking if frame is state.frames[-1] else None
            )
            corrected = {k for k, v in found.items() if state.slots.get(k) not in (None, v)}
            state.slots |= found
            frames.rewind(self.pack, frame, corrected)
            named, changed = named or bool(found), changed or bool(corrected)
            left = [entity for entity in left if entity.value not in found.values()]
        return named, changed

    def values(
        self, flow: str, entities: Sequence[Entity], asked: Collect | Confirm | None = None
    ) -> dict[str, Any]:
        """What the entities fill of a flow's slots."""
        if flow not in self.pack.flows:
            return {}
        return frames.values(self.pack, self.pack.flows[flow], entities, self.state.slots, asked)

    # ---- flows

    def start(self, flow: str) -> None:
        """Another flow on top of those that run, or back to the one that was interrupted."""
        if flow in self.running:
            while self.state.frames[-1].flow != flow:
                self.leave()
            return
        self.state.frames.append(Frame(flow=flow))
        while len(self.state.frames) > _DEEPEST:
            self.leave(0)

    def leave(self, which: int = -1) -> None:
        """Ends a flow; its slots go, except those that it keeps or that another one needs."""
        state = self.state
        name = state.frames.pop(which).flow
        flow = self.pack.flows.get(name)
        if flow is None:
            return
        collected = {step.collect for step in frames.collects(flow)}
        if collected:
            slots = {k: v for k, v in state.slots.items() if k in collected}
            state.recent = Recent(flow=name, slots=slots)
        others = (self.pack.flows[other] for other in self.running if other in self.pack.flows)
        needed: set[str] = set().union(*map(frames.owned, others))
        for slot in frames.owned(flow) - needed:
            state.slots.pop(slot, None)

    def leave_all(self) -> None:
        while self.state.frames:
            self.leave()

    def run_again(self, entities: Sequence[Entity]) -> bool:
        """The flow that ended last, with other values; False when they are none of its own."""
        recent = self.state.recent
        if recent is None or not (found := self.values(recent.flow, entities)):
            return False
        self.state.slots |= recent.slots | found
        self.start(recent.flow)
        return True

    def run(self) -> None:
        """Runs the innermost flow, then those below, until one waits or all have ended."""
        for _ in range(_LONGEST):
            if not self.state.frames or self._waits(self.state.frames[-1]):
                return
        self.leave_all()

    def _waits(self, frame: Frame) -> bool:
        """Does one step; True when the flow must now wait for a person or for the world."""
        step = frames.step_of(self.pack, frame)
        match step:
            case Collect() if not self._collected(step):
                return self._ask(frame, step.question)
            case Confirm():
                return self._ask(frame, step.confirm)
            case GenerateStep() | Action() | HandoffStep():
                self.steps.append(self._effect(frame, step))
                return True
            case If():
                holds = step.condition.holds(self.state.slots)
                frames.enter(self.pack, frame, "then" if holds else "otherwise")
                return False
            case End() | None:
                self.leave()
                return False
            case SayStep():
                self.say(step.say)
        frames.proceed(self.pack, frame)
        return False

    def _collected(self, step: Collect) -> bool:
        if self.state.slots.get(step.collect) is None and step.default is not None:
            self.state.slots[step.collect] = step.default
        return self.state.slots.get(step.collect) is not None

    def _ask(self, frame: Frame, reply: str) -> bool:
        """Asks in the words for a second time when the first one brought nothing, but not when the
        bot comes back to its question."""
        missed = bool(self.state.misses or self.state.silences)
        self.say(reply, again=frame.asked > 0 and missed)
        frame.asked += 1
        return True

    def _effect(self, frame: Frame, step: Effect) -> Step:
        match step:
            case Action():
                return Act(step.action)
            case HandoffStep():
                return Handoff(step.handoff)
        slots = self.state.slots
        own = {step.collect: step.collect for step in frames.collects(self.pack.flows[frame.flow])}
        named = (own if step.fields is None else step.fields).items()
        fields = {field: str(slots[slot]) for field, slot in named if slots.get(slot) is not None}
        prompt = self.pack.prompts.get(step.generate, {}).get(self.language)
        values = {**slots, "utterance": self.state.heard}
        return Generate(step.generate, fields, prompt.render(values) if prompt else None)

    # ---- what the world answered

    def resume(self, event: Done | Failed) -> None:
        """Goes on behind the effect that the flow waited for; nothing, when it waited for none."""
        frame = self.state.frames[-1] if self.state.frames else None
        step = frames.step_of(self.pack, frame) if frame else None
        if frame is None or not isinstance(step, Effect):
            return
        if isinstance(event, Done):
            self._take(frame, step, event)
            frames.proceed(self.pack, frame)
        elif not isinstance(step, HandoffStep) and step.otherwise:
            frames.enter(self.pack, frame, "otherwise")
        else:
            self.say(self.pack.unavailable)
            self.leave()
        self.run()

    def _take(self, frame: Frame, step: Effect, event: Done) -> None:
        state = self.state
        match step:
            case GenerateStep():
                state.said = " ".join(event.texts)
            case HandoffStep():
                state.handed_over = step.handoff
            case Action():
                # A server sets the slots that the flow says it fills or collects, and no others.
                own = {c.collect for c in frames.collects(self.pack.flows[frame.flow])}
                allowed = own.union(step.fills)
                state.slots |= {k: v for k, v in event.slots.items() if k in allowed}
                self._relay(step.action, event)

    def _relay(self, action: str, event: Done) -> None:
        for text in event.texts:
            self.state.said = text
            self.steps.append(Say(action, text))
        for reply in event.replies:
            if reply in self.pack.replies:
                self.say(reply)
