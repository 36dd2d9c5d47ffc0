"""Unsafe utterances are seen in any language; everyday ones are let through."""

from __future__ import annotations

from pathlib import Path

import pytest

from govor.domains import Safety, load_packs
from govor.domains.safety import bundled_phrases, compile_safety
from govor.templates import pack_lists

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def safety() -> Safety:
    return compile_safety(bundled_phrases())


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ("I want to kill myself", "self_harm"),
        ("I don’t want to live anymore", "self_harm"),
        ("thinking about suicide.", "self_harm"),
        ("Leo. I want to die!", "self_harm"),
        ("Я не хочу больше жить", "self_harm"),
        ("покончу наконец с собой", "self_harm"),
        ("думаю о самоубийстве", "self_harm"),
        ("I think I'm having a heart attack", "medical"),
        ("у меня болит в груди", "medical"),
        ("What pills... which medicine should I take", "medical"),
        ("вызовите скорую", "medical"),
        ("you are such an idiot", "abuse"),
        ("Тупой бот!", "abuse"),
        ("да пошёл ты", "abuse"),
        ("you idiot, I want to die", "self_harm"),
    ],
)
def test_unsafe(safety: Safety, text: str, category: str) -> None:
    assert safety.match(text) == category


@pytest.mark.parametrize(
    "text",
    [
        "cancer",
        "I'm dying to know",
        "kill the order",
        "рак на сегодня",
        "скорую доставку",
        "this deal is to die for",
        "сколько жить вместе весам и львам",
        "what is my health forecast",
        "",
        "!",
    ],
)
def test_everyday(safety: Safety, text: str) -> None:
    assert safety.match(text) is None


def test_no_utterance_or_reply_of_the_packs_is_unsafe() -> None:
    for pack in load_packs(HOME / "domains").values():
        for language in pack.languages:
            lists = pack_lists(pack, language)
            for _, template in pack.utterances(language):
                for sample in template.expand(lists, limit=20):
                    assert pack.safe_phrases.match(sample.text) is None, sample.text


def test_a_pack_adds_its_own(safety: Safety) -> None:
    more = compile_safety(bundled_phrases(), {"abuse": {"en": ("lousy ... oven",)}})
    assert more.match("your lousy old oven") == "abuse"
    assert more.match("lousy and a very old oven") is None
    assert safety.match("your lousy old oven") is None
