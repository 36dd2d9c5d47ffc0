"""What a conversation remembers, what may happen to it, and what it asks to be done.

The vocabulary of the policy: `policy.advance(pack, state, event)` gives a new `State` and `Step`s.
`Generate`, `Act` and `Handoff` need the world: one of them is always the last step; the turn does
it and tells the policy by another event, `Done` or `Failed`. `Say` is said as it comes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field

from govor.schemas.nlu import Understanding
from govor.schemas.turn import Button

Path = list[int | str]


class Frame(BaseModel):
    """A flow that runs. `at` is the path to its step: indices, with the names of branches between
    them; `asked` counts how often that step has asked its question."""

    flow: str
    at: Path = [0]
    asked: int = 0


class Recent(BaseModel):
    """The flow that ended last, with the slots it ended with: "and tomorrow?" runs it again."""

    flow: str
    slots: dict[str, Any]


class State(BaseModel):
    """All that is kept between two turns; JSON both ways.

    `frames` run innermost last. `menu` is shown. `misses` and `silences` count turns in a row that
    brought nothing. `drawn` is the variant used last of each reply, `said` the last words, `heard`
    the last utterance. `began` and `at` are the moments of the first and the last turn, in seconds
    since 1970.
    """

    frames: list[Frame] = Field(default_factory=list)
    slots: dict[str, Any] = Field(default_factory=dict)
    recent: Recent | None = None
    menu: str | None = None
    handed_over: str | None = None
    misses: int = 0
    silences: int = 0
    drawn: dict[str, int] = Field(default_factory=dict)
    said: str = ""
    heard: str = ""
    turns: int = 0
    began: float = 0.0
    at: float = 0.0


@dataclass(frozen=True)
class Started:
    """A conversation begins, and nobody has said anything."""


@dataclass(frozen=True)
class Heard:
    """An utterance; `understanding` is None when nobody could be asked what it means, `clear` is
    False when the transcript is hardly more than a guess."""

    text: str
    understanding: Understanding | None
    clear: bool = True


@dataclass(frozen=True)
class Silence:
    """The turn held no words."""


@dataclass(frozen=True)
class Deaf:
    """The turn held speech, and nobody could be asked what was said."""


@dataclass(frozen=True)
class Done:
    """The last step was done. An action answers slots, `texts` to say as they are, and names of
    `replies`; a generator its text."""

    slots: dict[str, Any] = field(default_factory=dict)
    texts: tuple[str, ...] = ()
    replies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failed:
    """The last step could not be done."""


Event = Started | Heard | Silence | Deaf | Done | Failed


@dataclass(frozen=True)
class Say:
    """Words; `name` is the reply they are of."""

    name: str
    text: str
    buttons: list[list[Button]] = field(default_factory=list)


@dataclass(frozen=True)
class Generate:
    """The generator writes: from `fields`, or from `prompt` when it is of the kind that takes one.
    The turn says what came and answers `Done(texts=(what came,))`."""

    name: str
    fields: dict[str, str]
    prompt: str | None = None


@dataclass(frozen=True)
class Act:
    """An action of the pack's action server."""

    name: str


@dataclass(frozen=True)
class Handoff:
    """A person takes over, at the desk `name`."""

    name: str


Step = Say | Generate | Act | Handoff


def label(step: Step) -> str:
    """How a turn's `steps` and a pack's dialogue tests call it."""
    match step:
        case Generate():
            return "generate"
        case Handoff():
            return "handoff"
    return step.name
