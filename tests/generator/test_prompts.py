"""services/generator/backends/prompts.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from govor.errors import Unprocessable
from govor.repository import VersionBroken
from govor.schemas.generation import Message
from services.generator.backends.config import Chat, DecoderConfig, Shape
from services.generator.backends.prompts import (
    Asked,
    Prompt,
    Prompter,
    chat_text,
    check_fields,
    fields_found,
    said,
)
from tests.generator.conftest import byte_tokenizer

SHAPE = Shape(layers=1, heads=1, head_dim=8, context=16, vocabulary=300, eos=[0])
DECLARED = {"language": ["en", "ru"], "size": ["big", "small"]}
CONTROL = ["<s>", "<en>", "<ru>", "<big>", "<small>", "<calm>", "<loud>", "<size>"]


def of_fields(declared: Any = DECLARED, **changes: Any) -> Prompter:
    config: dict[str, Any] = {
        "decoder": SHAPE,
        "prompt": ["<s>", "<{language}>", "<{size}>", "<{tone}>"],
        "defaults": {"language": "en"},
        "draws": {"tone": ["calm", "loud"]},
        "placeholders": {
            "<size>": {
                "field": "size",
                "forms": {
                    "en": {"big": "a big one", "small": "a small one"},
                    "ru": {"big": "большой", "small": "малый"},
                },
            }
        },
    }
    return Prompter(DecoderConfig(**config | changes), byte_tokenizer(*CONTROL), declared)


def prompt(prompter: Prompter, seed: int = 0, **asked: Any) -> Prompt:
    return prompter.prompt(Asked(**asked), np.random.default_rng(seed))


def tokens(*names: str) -> list[int]:
    tokenizer = byte_tokenizer(*CONTROL)
    return [int(tokenizer.token_to_id(name)) for name in names]


def test_fields_become_control_tokens_in_the_order_of_the_template() -> None:
    made = prompt(of_fields(), fields={"language": "ru", "size": "small"})
    assert made.ids[:3] == tokens("<s>", "<ru>", "<small>")
    assert made.fills == {tokens("<size>")[0]: "малый"}
    assert tokens("<size>")[0] not in made.never
    assert set(tokens(*CONTROL[:-1])) == set(made.never)


def test_a_placeholder_without_a_form_is_never_drawn() -> None:
    forms = {"en": {"big": "a big one", "small": "a small one"}}
    prompter = of_fields(placeholders={"<size>": {"field": "size", "forms": forms}})
    made = prompt(prompter, fields={"language": "ru", "size": "small"})
    assert made.fills == {}
    assert tokens("<size>")[0] in made.never


def test_what_is_missing_takes_its_default_or_is_drawn_by_the_seed() -> None:
    prompts = [prompt(of_fields(), seed, fields={}) for seed in range(20)]
    assert {made.ids[1] for made in prompts} == set(tokens("<en>"))
    assert {made.ids[2] for made in prompts} == set(tokens("<big>", "<small>"))
    assert {made.ids[3] for made in prompts} == set(tokens("<calm>", "<loud>"))
    assert prompt(of_fields(), 3, fields={}).ids == prompts[3].ids


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"size": "tiny"}, "fields.size", "size is one of big, small, not 'tiny'"),
        ({"tone": "calm"}, "fields.tone", "its fields are language, size"),
    ],
)
def test_fields_are_checked(fields: dict[str, str], param: str, said: str) -> None:
    with pytest.raises(Unprocessable, match=said) as caught:
        check_fields(fields, DECLARED)
    assert caught.value.param == param


def test_a_text_names_fields_by_entities_and_the_last_one_counts() -> None:
    found = [("size", "big"), ("size", "small"), ("size", "tiny"), ("order", 5), ("day", "today")]
    assert fields_found(found, DECLARED) == {"size": "small"}


def test_what_the_assistant_said_is_not_read() -> None:
    messages = [
        Message(role="user", content="big"),
        Message(role="assistant", content="or small?"),
        Message(role="user", content="yes"),
    ]
    assert said(None, messages) == "big\nyes"
    assert said("small", None) == "small"


def text_prompter(**changes: Any) -> Prompter:
    return Prompter(DecoderConfig(decoder=SHAPE, **changes), byte_tokenizer("<s>"), {})


def test_a_model_without_fields_takes_the_prompt_as_it_is() -> None:
    made = prompt(text_prompter(), prompt="Hi!")
    assert byte_tokenizer().decode(made.ids) == "Hi!"


def test_control_tokens_in_a_prompt_are_text() -> None:
    made = prompt(text_prompter(), prompt="<s>")
    assert len(made.ids) == 3


def test_messages_are_joined_by_templates_that_they_cannot_use() -> None:
    messages = [Message(role="system", content="Be {content}"), Message(role="user", content="Hi")]
    assert chat_text(messages, Chat()) == "Be {content}\n\nUser: Hi\nAssistant:"


def test_a_prompt_that_fills_the_context_is_refused_with_the_limit() -> None:
    with pytest.raises(Unprocessable, match="16 tokens long; the model reads 15") as caught:
        prompt(text_prompter(), prompt="x" * 16)
    assert caught.value.code == "prompt_too_long"
    assert len(prompt(text_prompter(), prompt="x" * 15).ids) == 15


def test_a_model_without_fields_refuses_them() -> None:
    with pytest.raises(Unprocessable, match="none: it takes a prompt or messages"):
        prompt(text_prompter(), fields={"size": "big"})


@pytest.mark.parametrize(
    ("changes", "trouble"),
    [
        ({"prompt": ["<nothing>"]}, "no token '<nothing>'"),
        ({"prompt": ["<{shape}>"]}, "names no field"),
        ({"prompt": ["<{language}{size}>"]}, "names no field"),
        ({"placeholders": {"<shape>": {"field": "size", "forms": {}}}}, "no token '<shape>'"),
    ],
)
def test_files_that_do_not_fit_each_other_are_a_broken_version(
    changes: dict[str, Any], trouble: str
) -> None:
    with pytest.raises(VersionBroken, match=trouble):
        of_fields(**changes)
