"""What the bot does next: a pure function of the pack, the state and what happened.

No clock, no network, no randomness but by the seed, so that a conversation can be replayed from its
events. Nothing here knows a pack. In this order an utterance is

1. unsafe (self-harm, a medical emergency, abuse): the pack's fixed reply;
2. a button of a menu;
3. "stop" (ends the flow) or "repeat";
4. the answer to what was asked, and any slot of the running flows that it names on the way: a slot
   that had another value is corrected and what depends on it is done again;
5. another intent: its flow runs, then the bot comes back to its question;
6. "and tomorrow?": the last flow again with another value;
7. not understood: asked again in other words, then the rungs of `no_match`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from random import Random

from govor.domains import Pack
from govor.domains.flows import Collect, Confirm
from govor.domains.model import AFFIRM, DENY, REPEAT, STOP, Escalation
from govor.schemas.nlu import Entity, Understanding
from govor.schemas.turn import DialogueState
from govor.text import words
from services.gateway import frames, replies
from services.gateway.dialogue import (
    Deaf,
    Done,
    Event,
    Failed,
    Heard,
    Say,
    Silence,
    Started,
    State,
    Step,
)
from services.gateway.talk import Talk, question

_INTERRUPTS = 0.5
"""Least confidence (calibrated: likelier than not) of an intent that interrupts an answer."""


def advance(
    pack: Pack, state: State, event: Event, *, language: str, now: float, seed: int
) -> tuple[State, list[Step]]:
    """The state after `event`, and what to do about it, in order.

    `now` is in seconds since 1970; `language` is one of the pack's. `state` is not changed. `Done`
    and `Failed` do nothing unless a step waits for them.
    """
    talk = Talk(pack, state.model_copy(deep=True), language, Random(f"{seed}:{state.turns}"))
    if isinstance(event, Done | Failed):
        talk.resume(event)
        return talk.state, talk.steps
    talk.begin(now)
    if talk.state.turns > pack.limits.turns or now - talk.state.began > pack.limits.seconds:
        talk.say(pack.ended)
        return State(drawn=talk.state.drawn, said=talk.state.said, at=now), talk.steps
    match event:
        case Started():
            talk.say(pack.greeting)
            talk.run()
        case Silence():
            talk.state.silences += 1
            _climb(talk, pack.no_input, talk.state.silences, ask_again=True)
        case Deaf():
            talk.say(pack.unavailable)
        case Heard():
            _hear(talk, event)
    return talk.state, talk.steps


def spoken(pack: Pack, text: str, language: str) -> str:
    """What an utterance says: for the title of a button, what pressing the button says."""
    button = pack.pressed(text)
    if button is None or button.menu or button.back:
        return text
    return button.says(language)


def needs_understanding(pack: Pack, text: str) -> bool:
    """False for what the policy answers whatever it means: unsafe words, a menu's buttons."""
    button = pack.pressed(text)
    return not (button and (button.menu or button.back)) and not pack.safe_phrases.match(text)


def shown(pack: Pack, state: State) -> DialogueState:
    """What a caller may see of the state."""
    asked = question(pack, state)
    return DialogueState(
        flow=state.frames[-1].flow if state.frames else None,
        slots=state.slots,
        asking=asked.collect if isinstance(asked, Collect) else asked.confirm if asked else None,
        handed_over=state.handed_over,
    )


def _hear(talk: Talk, event: Heard) -> None:
    state, pack = talk.state, talk.pack
    danger = pack.safe_phrases.match(event.text)
    button = pack.pressed(event.text)
    state.silences = 0
    if danger:
        _stay_safe(talk, danger)
    elif button and (button.menu or button.back):
        _show_menu(talk, button.menu)
    elif not event.clear:
        state.misses += 1
        _climb(talk, (Escalation(say=pack.repeat_please), *pack.no_match[1:]), state.misses)
    else:
        state.heard = event.text
        _answer(talk, event.understanding)


def _answer(talk: Talk, understanding: Understanding | None) -> None:
    intent = _intent(talk.pack, understanding)
    entities = _entities(talk, understanding.entities if understanding else [])
    sure = understanding is not None and understanding.intent.confidence >= _INTERRUPTS
    answered = _is_answer(talk, talk.asking, entities, sure)
    if intent == REPEAT and talk.state.said and not answered:
        talk.steps.append(Say(REPEAT, talk.state.said))
    elif intent == STOP and not answered:
        _stop(talk)
    elif _understood(talk, intent, entities, answered):
        talk.state.misses = 0
        talk.run()
    else:
        _no_match(talk)


def _entities(talk: Talk, entities: Sequence[Entity]) -> Sequence[Entity]:
    """What was found; when that does not answer the open question, what the question's own entity
    reads in the same words comes first ("15000" is an order's number until an amount is asked)."""
    asked = talk.asking
    if not isinstance(asked, Collect) or any(e.entity == asked.entity_name for e in entities):
        return entities
    if asked.entity_name not in talk.pack.entities:
        return entities
    today = datetime.fromtimestamp(talk.state.at, UTC).date()
    found = talk.pack.read(asked.entity_name, talk.state.heard, talk.language, today)
    read = [Entity(**asdict(item)) for item in found]
    return [
        *read,
        *(e for e in entities if all(e.end <= r.start or r.end <= e.start for r in read)),
    ]


def _intent(pack: Pack, understanding: Understanding | None) -> str | None:
    if understanding is None or understanding.out_of_scope:
        return None
    found = understanding.intent
    return found.name if found.confidence >= pack.thresholds.intent else None


def _understood(talk: Talk, intent: str | None, entities: Sequence[Entity], answered: bool) -> bool:
    """Prepares what an utterance asks for, to be run; False when that is nothing."""
    flow = talk.pack.flow_of(intent) if intent else None
    asked = talk.asking
    if frames.takes_all(asked) and isinstance(asked, Collect):
        talk.state.slots[asked.collect] = talk.state.heard
        return True
    if flow and flow not in talk.running[-1:] and not answered:
        talk.start(flow)
        talk.fill(entities)
        return True
    if asked is None:
        return talk.run_again(entities)
    named, changed = talk.fill(entities)
    agreed = _decision(talk.pack, intent, entities)
    if isinstance(asked, Confirm) and agreed is not None and not changed:
        _decide(talk, asked, agreed)
        return True
    return named


def _is_answer(
    talk: Talk, asked: Collect | Confirm | None, entities: Sequence[Entity], sure: bool
) -> bool:
    """Does the utterance answer the question, whatever else the classifier sees in it?

    It does when it is little more than the value asked for ("Leo"; a yes or no may come with it),
    or names it and the classifier is not `sure` of an intent. "Cancel order 123" is no answer.
    """
    if asked is None:
        return False
    found = talk.values(talk.running[-1], entities, asked)
    inside = {i for entity in entities for i in range(entity.start, entity.end)}
    outside = [word for word in words(talk.state.heard) if word.start not in inside]
    if isinstance(asked, Confirm):
        return bool(found) and (not sure or len(outside) <= 2)
    return asked.collect in found and (not sure or len(outside) <= 1)


def _decision(pack: Pack, intent: str | None, entities: Sequence[Entity]) -> bool | None:
    """Yes, no, or neither."""
    if intent in (AFFIRM, DENY):
        return intent == AFFIRM
    specs = ((entity, pack.entities.get(entity.entity)) for entity in entities)
    said = (entity.value for entity, spec in specs if spec and spec.resolver == "yes_no")
    return {"yes": True, "no": False}.get(str(next(said, None)))


def _decide(talk: Talk, asked: Confirm, agreed: bool) -> None:
    frame = talk.state.frames[-1]
    if agreed:
        frames.proceed(talk.pack, frame)
    elif asked.otherwise:
        frames.enter(talk.pack, frame, "otherwise")
    else:
        talk.say(talk.pack.stopped)
        talk.leave()


def _stay_safe(talk: Talk, danger: str) -> None:
    """The fixed reply. After words of self-harm nothing is asked for any more."""
    talk.say(getattr(talk.pack.safety, danger))
    if danger == "self_harm":
        talk.leave_all()


def _show_menu(talk: Talk, menu: str | None) -> None:
    """A menu, or (None) the one above what is shown."""
    pack, state = talk.pack, talk.state
    menu = menu or (pack.parent(state.menu) if state.menu else None) or pack.menu
    if menu is None:
        talk.say(pack.fallback)
        return
    said = replies.words(pack, state, pack.menus[menu].reply, talk.language, talk.rng)
    talk.steps.append(replace(said, buttons=replies.buttons(pack, menu, talk.language)))
    state.menu = menu


def _stop(talk: Talk) -> None:
    """Ends the flow and goes back to the one that it interrupted, if there is one."""
    if talk.state.frames:
        talk.leave()
    talk.state.recent, talk.state.misses = None, 0
    talk.say(talk.pack.stopped)
    talk.run()


def _no_match(talk: Talk) -> None:
    """Again in other words, when something was asked; then rung by rung."""
    talk.state.misses += 1
    if talk.asking and talk.state.misses == 1:
        talk.run()
    else:
        _climb(talk, talk.pack.no_match, talk.state.misses)


def _climb(talk: Talk, rungs: Sequence[Escalation], times: int, *, ask_again: bool = False) -> None:
    """The rung after so many times; what was asked stays open, and may be asked again."""
    rung = rungs[min(times, len(rungs)) - 1]
    if rung.say:
        talk.say(rung.say)
    if rung.flow:
        talk.start(rung.flow)
        talk.state.misses = talk.state.silences = 0
    if rung.flow or ask_again:
        talk.run()
