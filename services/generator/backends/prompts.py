"""What a request asks with, as tokens.

A version that declares fields is asked with control tokens, made from the fields; what a prompt or
messages say is found by the pack's entities of the same names. Any other version gets the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter

import numpy as np
from tokenizers import Tokenizer

from govor.errors import Unprocessable
from govor.repository import VersionBroken
from govor.schemas.generation import Message
from services.generator.backends.config import Chat, DecoderConfig

Declared = Mapping[str, Sequence[str]]
"""The fields of a version's manifest and their allowed values."""


@dataclass(frozen=True)
class Asked:
    """One of the three is given."""

    prompt: str | None = None
    messages: Sequence[Message] | None = None
    fields: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Prompt:
    """Tokens to go on from; the text of each placeholder token; the fields it was made of; the
    tokens that never follow."""

    ids: list[int]
    fills: Mapping[int, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    never: Sequence[int] = ()


def check_fields(fields: Mapping[str, str], declared: Declared) -> None:
    """Raises `Unprocessable` naming the field and what is allowed."""
    for name, value in fields.items():
        if name not in declared:
            known = ", ".join(sorted(declared)) or "none: it takes a prompt or messages"
            raise Unprocessable(
                f"the model has no field {name!r}; its fields are {known}",
                code="unknown_field",
                param=f"fields.{name}",
            )
        if value not in declared[name]:
            raise Unprocessable(
                f"{name} is one of {', '.join(declared[name])}, not {value!r}",
                code="invalid_field",
                param=f"fields.{name}",
            )


def fields_found(found: Iterable[tuple[str, object]], declared: Declared) -> dict[str, str]:
    """The fields that a text names: (entity, value) pairs that are allowed; the last one wins."""
    return {
        name: value
        for name, value in found
        if isinstance(value, str) and value in declared.get(name, ())
    }


def said(prompt: str | None, messages: Sequence[Message] | None) -> str:
    """What the person says: the prompt, or all messages but the assistant's, a line each."""
    if prompt is not None:
        return prompt
    return "\n".join(m.content for m in messages or () if m.role != "assistant")


def chat_text(messages: Sequence[Message], chat: Chat) -> str:
    """The messages by the version's templates; their text is never a template itself."""
    turns = [getattr(chat, m.role).replace("{content}", m.content) for m in messages]
    return "".join(turns) + chat.open


class Prompter:
    """Makes a version's prompts. Raises `VersionBroken` when its files do not fit each other."""

    def __init__(self, config: DecoderConfig, tokenizer: Tokenizer, declared: Declared) -> None:
        self._config = config
        self._tokenizer = tokenizer
        # Text that looks like a control token is text.
        tokenizer.encode_special_tokens = True
        self._declared = declared
        self._values: Declared = {**declared, **config.draws}
        self._control = [self._line(line) for line in config.prompt]
        self._placeholders = {self._token(name): at for name, at in config.placeholders.items()}
        added = tokenizer.get_added_tokens_decoder().items()
        special = {token for token, about in added if about.special}
        self._never = special - set(config.decoder.eos)

    def prompt(self, asked: Asked, rng: np.random.Generator) -> Prompt:
        """Raises `Unprocessable` for fields that are not declared (`unknown_field`,
        `invalid_field`) and for a prompt that leaves no room in the context
        (`prompt_too_long`)."""
        check_fields(asked.fields or {}, self._declared)
        if self._declared:
            return self._of_fields(asked.fields or {}, rng)
        return self._of_text(asked)

    def _of_fields(self, given: Mapping[str, str], rng: np.random.Generator) -> Prompt:
        fields = {**self._config.defaults, **given}
        for name, values in self._values.items():
            if name not in fields:
                fields[name] = str(rng.choice(values))
        ids = [tokens[fields.get(name, "")] for name, tokens in self._control]
        fills = dict(self._fills(fields))
        return Prompt(ids, fills, fields, sorted(self._never - fills.keys()))

    def _fills(self, fields: Mapping[str, str]) -> Iterator[tuple[int, str]]:
        """The placeholders that have a form for these fields; the others are never drawn."""
        for token, placeholder in self._placeholders.items():
            forms = placeholder.forms.get(fields.get("language", ""), {})
            if (form := forms.get(fields.get(placeholder.field, ""))) is not None:
                yield token, form

    def _of_text(self, asked: Asked) -> Prompt:
        shape = self._config.decoder
        text = chat_text(asked.messages, self._config.chat) if asked.messages else asked.prompt
        ids = self._tokenizer.encode(text or "", add_special_tokens=False).ids
        if shape.bos is not None:
            ids = [shape.bos, *ids]
        if not ids:
            raise Unprocessable("the prompt is empty", code="prompt_empty", param="prompt")
        if len(ids) >= shape.context:
            raise Unprocessable(
                f"the prompt is {len(ids)} tokens long; the model reads {shape.context - 1}",
                code="prompt_too_long",
                param="messages" if asked.messages else "prompt",
            )
        return Prompt(ids, never=sorted(self._never))

    def _line(self, line: str) -> tuple[str, dict[str, int]]:
        """The field that a line of the prompt names ("" for none) and its token by value."""
        names = [name for _, name, _, _ in Formatter().parse(line) if name is not None]
        if not names:
            return "", {"": self._token(line)}
        if len(names) > 1 or names[0] not in self._values:
            raise VersionBroken(f"config.json: prompt: {line!r} names no field of the manifest")
        name = names[0]
        values = self._values[name]
        return name, {value: self._token(line.format(**{name: value})) for value in values}

    def _token(self, text: str) -> int:
        token = self._tokenizer.token_to_id(text)
        if token is None:
            raise VersionBroken(f"tokenizer.json has no token {text!r}, which config.json names")
        return int(token)
