"""Where a flow stands: paths through its steps, and the slots that an utterance fills."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from govor.domains import Pack
from govor.domains.flows import Action, Collect, Confirm, Flow, If, Step, walk
from govor.domains.model import TEXT
from govor.schemas.nlu import Entity
from services.gateway.dialogue import Frame, Path

BRANCHES = ("then", "otherwise")


def step_of(pack: Pack, frame: Frame) -> Step | None:
    """The step that the frame stands at; None when its flow has ended.

    A path that a changed pack no longer has is the end of its flow too.
    """
    flow = pack.flows.get(frame.flow)
    return None if flow is None else _at(flow.steps, frame.at)


def proceed(pack: Pack, frame: Frame) -> None:
    """To the next step: the one behind, or behind the `if` whose branch ends here."""
    _move(pack, frame, _behind(frame.at))


def enter(pack: Pack, frame: Frame, branch: str) -> None:
    """Into a branch (`then`, `otherwise`) of the step that the frame stands at."""
    _move(pack, frame, [*frame.at, branch, 0])


def rewind(pack: Pack, frame: Frame, slots: Iterable[str]) -> None:
    """Back to where the first of `slots` was collected or decided by, if the frame has passed it.

    What follows is done again with the new value: actions are called, confirmations asked anew.
    """
    wanted = set(slots)
    for path, step in _paths(pack.flows[frame.flow].steps):
        if path == frame.at:
            return
        if wanted & _uses(step):
            frame.at, frame.asked = path[:1], 0
            return


def owned(flow: Flow) -> set[str]:
    """The slots that live only as long as the flow."""
    filled = (set(step.fills) for step in walk(flow.steps) if isinstance(step, Action))
    return ({c.collect for c in collects(flow)}.union(*filled)) - set(flow.keep)


def collects(flow: Flow) -> Iterator[Collect]:
    return (step for step in walk(flow.steps) if isinstance(step, Collect))


def values(
    pack: Pack,
    flow: Flow,
    entities: Sequence[Entity],
    slots: dict[str, Any],
    asked: Collect | Confirm | None,
) -> dict[str, Any]:
    """What an utterance's entities fill of a flow's slots.

    Each entity fills one slot: first the one that was asked for, then those that are empty, then
    (a correction) those that are not. A slot that none fills takes the value in whose `dates` a
    date of its `from` falls.
    """
    left = list(entities)
    found: dict[str, Any] = {}
    steps = list(collects(flow))
    asked_first = sorted(steps, key=lambda c: (c != asked, slots.get(c.collect) is not None))
    for step in asked_first:
        named = next((e for e in left if e.entity == step.entity_name), None)
        if named is not None and step.collect not in found:
            left.remove(named)
            found[step.collect] = named.value
    for step in steps:
        if step.collect not in found and (value := _by_date(pack, step, left)) is not None:
            found[step.collect] = value
    return found


def takes_all(step: Step | None) -> bool:
    """Whether the whole utterance is the answer."""
    return isinstance(step, Collect) and step.entity_name == TEXT


def _by_date(pack: Pack, step: Collect, entities: Sequence[Entity]) -> str | None:
    spec = pack.entities.get(step.entity_name)
    dates = (e.value for e in entities if e.entity in step.sources)
    keys = (spec.by_date(date) for date in dates if spec and isinstance(date, str))
    return next((key for key in keys if key), None)


def _uses(step: Step) -> set[str]:
    if isinstance(step, Collect):
        return {step.collect}
    return step.condition.slots() if isinstance(step, If) else set()


def _paths(steps: tuple[Step, ...], above: Path | None = None) -> Iterator[tuple[Path, Step]]:
    for index, step in enumerate(steps):
        path = [*(above or []), index]
        yield path, step
        for branch in BRANCHES:
            yield from _paths(getattr(step, branch, ()), [*path, branch])


def _at(steps: tuple[Step, ...], at: Path) -> Step | None:
    index, rest = at[0], at[1:]
    if not isinstance(index, int) or not 0 <= index < len(steps):
        return None
    if not rest:
        return steps[index]
    branch = getattr(steps[index], str(rest[0]), ()) if rest[0] in BRANCHES else ()
    return _at(branch, rest[1:]) if rest[1:] else None


def _behind(at: Path) -> Path:
    return [*at[:-1], int(at[-1]) + 1]


def _move(pack: Pack, frame: Frame, at: Path) -> None:
    """To `at`; when a branch ends there, behind the step that it belongs to.

    But the `else` of an action or a confirmation ends its flow: what follows is for the one that
    was done, or agreed to.
    """
    steps = pack.flows[frame.flow].steps
    while len(at) > 1 and _at(steps, at) is None:
        whole = isinstance(_at(steps, at[:-2]), Action | Confirm)
        at = [len(steps)] if whole else _behind(at[:-2])
    frame.at, frame.asked = at, 0
