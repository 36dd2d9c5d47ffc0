"""What must not reach a flow: phrases of self-harm, medical emergencies and abuse.

`safety.yaml` beside this file holds them for all packs; a pack may add its own `safety.yaml`. They
are matched in every language at once, because people in distress do not keep to the one that they
began in. In a phrase, `word*` is any word that begins so and `...` is up to two words of anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, RootModel, StringConstraints

from govor.domains.source import read_yaml
from govor.templates import parse

Category = Literal["self_harm", "medical", "abuse"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
"""In the order in which they are looked for: a life first."""

Phrases = dict[Category, dict[str, tuple[str, ...]]]
_WORD = re.compile(r"[\w']+")
_PHRASE = Annotated[str, StringConstraints(pattern=r"[^\W\d_]")]


class SafetyFile(
    RootModel[dict[Category, dict[str, Annotated[tuple[_PHRASE, ...], Field(min_length=1)]]]]
):
    """`safety.yaml`: phrases by category and language, as templates."""


@dataclass(frozen=True)
class Safety:
    """A matcher of phrases, one regular expression a category."""

    patterns: Mapping[Category, re.Pattern[str]]

    def match(self, text: str) -> Category | None:
        """The first category that a phrase in the text belongs to."""
        words = f" {' '.join(_words(text))} "
        return next((c for c, pattern in self.patterns.items() if pattern.search(words)), None)


@cache
def bundled_phrases() -> Phrases:
    """The phrases for all packs."""
    return read_yaml(Path(__file__).with_name("safety.yaml"), "safety.yaml").parse(SafetyFile).root


def compile_safety(*tables: Phrases) -> Safety:
    """One matcher of all tables. Raises ValueError for a phrase that is no template."""
    patterns: dict[Category, re.Pattern[str]] = {}
    for category in CATEGORIES:
        phrases = [
            sample.text
            for table in tables
            for templates in table.get(category, {}).values()
            for template in templates
            for sample in parse(template).expand({}, limit=1000)
        ]
        if phrases:
            patterns[category] = re.compile(_alternatives(phrases))
    return Safety(patterns)


def _alternatives(phrases: Iterable[str]) -> str:
    return "|".join(sorted({f" {_phrase(phrase)}(?= )" for phrase in phrases}))


def _phrase(phrase: str) -> str:
    parts = []
    for token in phrase.lower().replace("ё", "е").replace("...", " ... ").split():
        if token == "...":
            parts.append(r"(?:[\w']+ ){0,2}")
            continue
        stem, star, _ = token.partition("*")
        parts.append(re.escape(stem.strip(",.!?")) + (r"[\w']* " if star else " "))
    return "".join(parts).removesuffix(" ")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower().replace("ё", "е").replace("’", "'"))
