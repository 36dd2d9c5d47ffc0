"""The shapes of a pack's files. Cross-checks between them are in `checks.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from govor.config import Consent
from govor.domains.flows import Part
from govor.entities import CHECKS, RESOLVERS

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)(?::([a-z]+))?\}")
"""`{slot}` or `{slot:kind}` in a reply or a prompt."""

AFFIRM, DENY, STOP, REPEAT = "affirm", "deny", "stop", "repeat"
"""Intents that the policy itself understands, when a pack has them."""
TEXT = "text"
"""The entity of `collect` that is the whole utterance."""


class IntentSpec(Part):
    """What people say when they want one thing. `not_this` are near misses, which no intent of the
    pack takes: the classifier learns them as background."""

    intent: Name
    utterances: dict[Language, Texts]
    not_this: dict[Language, Texts] = Field(default_factory=dict)


class ListValue(Part):
    """One value of a list entity: its forms by language (the first one is shown in replies), and
    the days of the year (`07-23..08-22`) that mean it."""

    forms: dict[Language, Texts]
    dates: Annotated[str, StringConstraints(pattern=r"^\d\d-\d\d\.\.\d\d-\d\d$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: object) -> object:
        if isinstance(value, dict) and "forms" not in value:
            dates = {"dates": value["dates"]} if "dates" in value else {}
            return {"forms": {k: v for k, v in value.items() if k != "dates"}} | dates
        return value

    def covers(self, day: date) -> bool:
        """Does the day fall into `dates`? They may run over the new year."""
        if self.dates is None:
            return False
        first, last = self.dates.split("..")
        at = f"{day:%m-%d}"
        return first <= at <= last if first <= last else at >= first or at <= last


class EntitySpec(Part):
    """A value to find: exactly one of a list of `values`, a `pattern` (a regular expression, with
    a `check`), and a built-in `resolver`.

    `fuzzy: 1` forgives one typing mistake in words of five letters and more. `prefer` says which
    year a date without one means. `examples` stand for a pattern or resolver in samples and in
    the speech grammar.
    """

    entity: Name
    values: dict[Name, ListValue] = Field(default_factory=dict)
    fuzzy: Literal[0, 1] = 0
    pattern: str | None = None
    check: Literal[CHECKS] | None = None  # type: ignore[valid-type]
    resolver: Literal[RESOLVERS] | None = None  # type: ignore[valid-type]
    prefer: Literal["past", "future", "year"] = "year"
    examples: dict[Language, Texts] = Field(default_factory=dict)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _one_of(self) -> EntitySpec:
        if sum(map(bool, (self.values, self.pattern, self.resolver))) != 1:
            raise ValueError("give exactly one of values, pattern and resolver")
        if self.check and not self.pattern:
            raise ValueError("check goes with pattern")
        return self

    def by_date(self, iso: str) -> str | None:
        """The value whose `dates` hold the ISO date, if there is one."""
        try:
            day = date.fromisoformat(iso)
        except ValueError:
            return None
        return next((key for key, value in self.values.items() if value.covers(day)), None)

    def shown(self, key: str, language: str) -> str:
        """How replies name a value of the list."""
        value = self.values.get(key)
        return value.forms[language][0] if value and language in value.forms else key


class ReplySpec(Part):
    """What the bot says: variants by language, `again` when it must ask a second time, and the
    menu whose buttons go with it."""

    variants: dict[Language, Texts]
    again: dict[Language, Texts] = Field(default_factory=dict)
    buttons: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: object) -> object:
        if isinstance(value, dict) and "variants" not in value:
            rest = {key: value[key] for key in ("again", "buttons") if key in value}
            return rest | {"variants": {k: v for k, v in value.items() if k not in rest}}
        return value

    def texts(self, language: str, again: bool = False) -> tuple[str, ...]:
        """The variants to choose from; those of `again` where there are any and it is asked."""
        return (self.again.get(language) if again else None) or self.variants[language]

    def slots(self) -> Iterator[tuple[str, str | None]]:
        """Every `(slot, kind)` that the reply names."""
        for table in (self.variants, self.again):
            for texts in table.values():
                for text in texts:
                    yield from ((m[1], m[2]) for m in PLACEHOLDER.finditer(text))


class MenuButton(Part):
    """`title` is shown; pressing it says `text` (the title when absent), opens another `menu`, or
    goes `back` to the menu that this one was opened from."""

    title: dict[Language, Text]
    text: dict[Language, Text] | None = None
    menu: Name | None = None
    back: bool = False

    def says(self, language: str) -> str:
        return (self.text or self.title)[language]


class Menu(Part):
    """Rows of buttons, and the reply that opens them."""

    reply: Name
    buttons: tuple[tuple[MenuButton, ...], ...] = Field(min_length=1)


class Thresholds(Part):
    """`intent`: least confidence for an intent to count, beside the head's own out-of-scope
    threshold; `transcript`: least confidence of a transcript that is not asked for again."""

    intent: float = Field(0.0, ge=0, le=1)
    transcript: float = Field(0.0, ge=0, le=1)


class Webhook(Part):
    """Where actions or hand-overs are sent; settings may name another address."""

    url: str | None = None
    timeout_seconds: float = Field(5.0, gt=0, le=60)


class Limits(Part):
    """Past one of them a conversation ends in the reply `ended`."""

    turns: int = Field(500, ge=1)
    seconds: int = Field(24 * 3600, ge=1)


class Escalation(Part):
    """One rung: say a reply, or run a flow."""

    say: Name | None = None
    flow: Name | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Escalation:
        if (self.say is None) == (self.flow is None):
            raise ValueError("give exactly one of say and flow")
        return self


def _rung(value: object) -> object:
    return {"say": value} if isinstance(value, str) else value


Rungs = Annotated[tuple[Annotated[Escalation, BeforeValidator(_rung)], ...], Field(min_length=1)]


class SafeReplies(Part):
    """The fixed replies to what must not reach a flow."""

    self_harm: Name
    medical: Name
    abuse: Name


class DomainSpec(Part):
    """`domain.yaml`. Names of replies unless a comment says otherwise.

    `stopped` ends a flow, `repeat_please` answers a transcript that is a guess, `unavailable` a
    part of ours that is down, `ended` a conversation past its limits.
    `no_match` and `no_input` are rungs climbed when the bot did not understand, or heard nothing,
    several times running; the last one stays. `forget_after` is seconds of silence after which
    a conversation starts anew.
    """

    name: Name
    languages: tuple[Language, ...] = Field(min_length=1)
    description: dict[Language, Text] = Field(default_factory=dict)
    voices: dict[Language, str] = Field(default_factory=dict)
    greeting: Name
    fallback: Name
    stopped: Name
    repeat_please: Name
    unavailable: Name
    ended: Name
    menu: Name | None = None
    no_match: Rungs
    no_input: Rungs
    safety: SafeReplies
    consent: Consent | None = None
    thresholds: Thresholds = Thresholds()
    forget_after: float = Field(900.0, gt=0)
    limits: Limits = Limits()
    actions: Webhook = Webhook()
    handoffs: dict[Name, Webhook] = Field(default_factory=dict)


class DialogueTurn(Part):
    """One exchange of a test. `user` is what is typed ("" is silence); what is absent is not
    looked at.

    `intent: null` is out of scope, `flow` runs afterwards, `asking` is the slot or confirmation
    that is open, `reply` names the steps in order (replies, actions, `generate`, `handoff`),
    `slots` and `entities` are among those there are, `contains` is part of the words, `buttons`
    says whether there are any.
    """

    user: str
    intent: str | None = ""
    entities: dict[str, Any] | None = None
    slots: dict[str, Any] | None = None
    flow: str | None = ""
    asking: str | None = ""
    reply: tuple[str, ...] | None = None
    handed_over: str | None = ""
    contains: str | None = None
    buttons: bool | None = None

    @field_validator("reply", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Dialogue(Part):
    """A test dialogue. `actions` is what the action server answers (slots), null a server that
    does not answer; an action that is not named succeeds with no slots. `generator: false` is one
    that is down."""

    name: Text
    language: Language
    actions: dict[str, dict[str, Any] | None] = Field(default_factory=dict)
    generator: bool = True
    turns: tuple[DialogueTurn, ...] = Field(min_length=1)
