"""What `config.json` of a version says: the decoder's shapes, and how its texts are asked for.

A model that declares fields in its manifest is prompted by control tokens; any other model takes
text. Nothing here knows what the fields mean: it is all in the version.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

Forms = dict[str, dict[str, str]]
"""language -> value of the field -> text"""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True)


class Shape(Section):
    """The ONNX graph's past is [texts, heads, context, head_dim] a layer; `context` counts tokens,
    prompt included. `eos` are the tokens that end a text, `bos` begins a prompt of text."""

    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    vocabulary: int = Field(ge=2)
    context: int = Field(ge=2)
    eos: list[int] = Field(min_length=1)
    bos: int | None = None


class Placeholder(Section):
    """A token that stands for a form of a field's value."""

    field: str
    forms: Forms


class Names(Section):
    """Words (lower case) of a field's values, by language."""

    field: str
    forms: dict[str, dict[str, list[str]]]


class Filter(Section):
    """What a text must keep to: lengths in characters; one of `endings` comes last; no run of
    `repeat` words comes twice; no word of `names` that means another value than the text's own."""

    min_chars: int = 1
    max_chars: int = 100_000
    endings: str = ".!?…"
    repeat: int = Field(5, ge=2)
    names: Names | None = None


class Chat(Section):
    """How messages become one prompt: each role's text holds `{content}`; `open` follows the last
    message and invites the model to go on."""

    system: str = "{content}\n\n"
    user: str = "User: {content}\n"
    assistant: str = "Assistant: {content}\n"
    open: str = "Assistant:"


class DecoderConfig(Section):
    """`config.json`.

    Each line of `prompt` is a token, in which `{field}` stands for the value of a field. A field
    that is not given takes its default; without one, one of `draws` or else of the manifest's
    values, by the seed. `draws` may name what is no field.
    """

    decoder: Shape
    max_tokens: int = Field(256, ge=1)
    prompt: list[str] = Field(default_factory=list)
    defaults: dict[str, str] = Field(default_factory=dict)
    draws: dict[str, list[str]] = Field(default_factory=dict)
    placeholders: dict[str, Placeholder] = Field(default_factory=dict)
    filter: Filter | None = None
    chat: Chat = Chat()
