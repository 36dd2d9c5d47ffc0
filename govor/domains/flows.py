"""The steps of a flow: what the bot does about an intent (`flows.yaml`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    PlainValidator,
    Tag,
    WithJsonSchema,
    field_validator,
)

from govor.domains.conditions import Condition, parse_condition


class Part(BaseModel):
    """A piece of a pack: unknown keys are mistakes, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def _condition(value: object) -> Condition:
    if isinstance(value, Condition):
        return value
    if not isinstance(value, str):
        raise ValueError("a condition is text, such as: not order_found")
    return parse_condition(value)


ConditionField = Annotated[
    Condition,
    PlainValidator(_condition),
    PlainSerializer(lambda condition: condition.text),
    WithJsonSchema({"type": "string", "examples": ["not order_found", "money.amount > 100"]}),
]


class Collect(Part):
    """Fill a slot, asking for it (`ask`, else the reply `ask_<slot>`) when nothing else does.

    The slot is filled by the entity of its name or by `entity`; by an entity of `from` whose date
    falls into a value's `dates`; else by `default`. `entity: text` takes the whole utterance.
    """

    collect: str
    entity: str | None = None
    sources: tuple[str, ...] = Field((), alias="from")
    default: Any = None
    ask: str | None = None

    @field_validator("sources", mode="before")
    @classmethod
    def _one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @property
    def entity_name(self) -> str:
        return self.entity or self.collect

    @property
    def question(self) -> str:
        return self.ask or f"ask_{self.collect}"


class Say(Part):
    """Say a reply."""

    say: str


class End(Part):
    """End the flow here."""

    end: bool = True


class Handoff(Part):
    """Hand the conversation over to people: a name of `domain.yaml: handoffs`."""

    handoff: str


def _then_end(value: object) -> object:
    return [{"say": value}, {"end": True}] if isinstance(value, str) else value


class Generate(Part):
    """Let the generator write. `fields`: its field -> our slot (a list when the names agree); the
    slots of the generator's own field names when absent. `prompts/<name>.<language>.txt` is for
    generators that take a prompt. `else`: the reply (or steps) for a generator that fails."""

    generate: str
    fields: dict[str, str] | None = None
    otherwise: tuple[Step, ...] = Field((), alias="else")

    @field_validator("fields", mode="before")
    @classmethod
    def _same_names(cls, value: object) -> object:
        return {name: name for name in value} if isinstance(value, list) else value

    @field_validator("otherwise", mode="before")
    @classmethod
    def _reply(cls, value: object) -> object:
        return [{"say": value}] if isinstance(value, str) else value


class Action(Part):
    """Call the action server (Rasa's protocol); it answers with slots, named in `fills`.

    `else`: steps for a server that does not answer; a reply's name says it and ends the flow.
    """

    action: str
    fills: tuple[str, ...] = ()
    otherwise: tuple[Step, ...] = Field(alias="else")

    @field_validator("otherwise", mode="before")
    @classmethod
    def _reply(cls, value: object) -> object:
        return _then_end(value)


class If(Part):
    """Choose by the slots; see `govor.domains.conditions`."""

    condition: ConditionField = Field(alias="if")
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...] = Field((), alias="else")


class Confirm(Part):
    """Ask for a yes. Yes goes on, no does `else` (the pack's `stopped` reply and the end when
    absent), a new value for a slot fills it and asks again."""

    confirm: str
    otherwise: tuple[Step, ...] = Field((), alias="else")

    @field_validator("otherwise", mode="before")
    @classmethod
    def _reply(cls, value: object) -> object:
        return _then_end(value)


_KEYS = ("collect", "say", "generate", "action", "if", "confirm", "handoff", "end")


def _kind(value: object) -> str | None:
    if isinstance(value, Part):
        return f"step:{type(value).__name__.lower()}"
    if isinstance(value, dict):
        return next((f"step:{key}" for key in _KEYS if key in value), None)
    return None


Step = Annotated[
    Annotated[Collect, Tag("step:collect")]
    | Annotated[Say, Tag("step:say")]
    | Annotated[Generate, Tag("step:generate")]
    | Annotated[Action, Tag("step:action")]
    | Annotated[If, Tag("step:if")]
    | Annotated[Confirm, Tag("step:confirm")]
    | Annotated[Handoff, Tag("step:handoff")]
    | Annotated[End, Tag("step:end")],
    Discriminator(
        _kind,
        custom_error_type="step_unknown",
        custom_error_message=f"a step is one of: {', '.join(_KEYS)}",
    ),
]


class Flow(Part):
    """Started by the intent of its name, or by `intents`. Slots in `keep` outlive the flow."""

    steps: tuple[Step, ...] = Field(min_length=1)
    intents: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


for _model in (Generate, Action, If, Confirm, Flow):
    _model.model_rebuild()


def walk(steps: tuple[Step, ...]) -> Iterator[Step]:
    """Every step, those inside `then` and `else` too."""
    for step in steps:
        yield step
        for inner in (getattr(step, "then", ()), getattr(step, "otherwise", ())):
            yield from walk(inner)
