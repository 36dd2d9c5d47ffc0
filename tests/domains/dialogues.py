"""Plays a pack's test dialogues: the real model understands, the real policy answers; only the
generator and the action server are stood in for, by what the dialogue says of them."""

from __future__ import annotations

from collections.abc import Iterable

from govor.domains import Dialogue, DialogueTurn, Pack
from govor.schemas.nlu import Entity, Intent, Understanding
from services.gateway import policy
from services.gateway.dialogue import (
    Act,
    Done,
    Event,
    Failed,
    Generate,
    Heard,
    Say,
    Silence,
    State,
    Step,
    label,
)
from services.nlu.backends import Parsed
from services.nlu.backends.ngram import Ngram

GENERATED = "The stars are kind today."


async def play(pack: Pack, dialogue: Dialogue, model: Ngram, seed: int = 1) -> list[str]:
    """What did not come out as written, a line each."""
    state, wrong = State(), []
    for number, turn in enumerate(dialogue.turns, 1):
        event = await _event(pack, dialogue, turn, model)
        state, steps = _answer(pack, dialogue, state, event, now=60.0 * number, seed=seed)
        for complaint in _compare(pack, turn, event, state, steps):
            wrong.append(f"{pack.name}, {dialogue.name}, {turn.user!r}: {complaint}")
    return wrong


async def _event(pack: Pack, dialogue: Dialogue, turn: DialogueTurn, model: Ngram) -> Event:
    if not turn.user:
        return Silence()
    text = policy.spoken(pack, turn.user, dialogue.language)
    if not policy.needs_understanding(pack, text):
        return Heard(text, None)
    (parsed,) = await model.understand([text], pack.name, dialogue.language)
    return Heard(text, _understanding(text, parsed))


def _understanding(text: str, parsed: Parsed) -> Understanding:
    ranking = [Intent(name=name, confidence=confidence) for name, confidence in parsed.ranking]
    best = Intent(name=None, confidence=0.0) if parsed.out_of_scope else ranking[0]
    return Understanding(
        text=text,
        language=parsed.language,
        intent=best,
        intent_ranking=ranking,
        entities=[
            Entity(
                entity=e.entity, value=e.value, start=e.start, end=e.end, confidence=e.confidence
            )
            for e in parsed.entities
        ],
        out_of_scope=parsed.out_of_scope,
        model="nlu",
        version=1,
        timings={},
    )


def _answer(
    pack: Pack, dialogue: Dialogue, state: State, event: Event | None, *, now: float, seed: int
) -> tuple[State, list[Step]]:
    taken: list[Step] = []
    while event is not None:
        state, steps = policy.advance(
            pack, state, event, language=dialogue.language, now=now, seed=seed
        )
        taken += steps
        event = _world(dialogue, steps[-1]) if steps else None
    return state, taken


def _world(dialogue: Dialogue, step: Step) -> Event | None:
    match step:
        case Say():
            return None
        case Generate():
            return Done(texts=(GENERATED,)) if dialogue.generator else Failed()
        case Act(name=name):
            slots = dialogue.actions.get(name, {})
            return Failed() if slots is None else Done(slots)
    return Done()


def _compare(
    pack: Pack, turn: DialogueTurn, event: Event, state: State, steps: list[Step]
) -> Iterable[str]:
    shown = policy.shown(pack, state)
    heard = event.understanding if isinstance(event, Heard) else None
    intent = heard.intent.name if heard else None
    found = {e.entity: e.value for e in heard.entities} if heard else {}
    said = " ".join(step.text for step in steps if isinstance(step, Say))
    buttons = any(step.buttons for step in steps if isinstance(step, Say))
    names = tuple(map(label, steps))
    slots = {**(state.recent.slots if state.recent else {}), **shown.slots}
    for what, wanted, got in (
        ("intent", turn.intent, intent),
        ("flow", turn.flow, shown.flow),
        ("asking", turn.asking, shown.asking),
        ("handed_over", turn.handed_over, shown.handed_over),
    ):
        if wanted not in ("", got):
            yield f"{what} is {got!r}, not {wanted!r}"
    for what, part, whole in (("entities", turn.entities, found), ("slots", turn.slots, slots)):
        if part is not None and not part.items() <= whole.items():
            yield f"{what} are {whole}, without {part}"
    if turn.reply is not None and turn.reply != names:
        yield f"the reply is {names}, not {turn.reply}"
    if turn.contains is not None and turn.contains not in said:
        yield f"{said!r} does not hold {turn.contains!r}"
    if turn.buttons not in (None, buttons):
        yield "there are buttons" if buttons else "there are no buttons"
