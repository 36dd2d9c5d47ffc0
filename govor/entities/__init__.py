"""Entities of a pack found in text: lists of values, patterns, and built-in resolvers.

A pack's entities become a JSON `spec` (`spec_of`) that travels inside a model version;
`EntityFinder` is built from it. Nothing here learns: the same text gives the same
entities, in any batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from govor.entities.examples import EXAMPLE_DAY, EXAMPLES
from govor.entities.formats import format_value
from govor.entities.lists import ValueList, value_forms
from govor.entities.patterns import CHECKS_BY_NAME
from govor.entities.resolvers import RESOLVERS_BY_NAME
from govor.entities.tokens import Tokens, tokenize, words

if TYPE_CHECKING:
    from govor.domains import EntitySpec, Pack

__all__ = ["CHECKS", "RESOLVERS", "EntityFinder", "Found", "examples_of", "format_value", "spec_of"]

CHECKS = tuple(CHECKS_BY_NAME)
RESOLVERS = tuple(RESOLVERS_BY_NAME)
MAX_PATTERN_CHARS = 200


@dataclass(frozen=True)
class Found:
    """A value in a text; `start` and `end` count its code points."""

    entity: str
    value: Any
    start: int
    end: int
    confidence: float


def spec_of(pack: Pack, only: str | None = None) -> dict[str, Any]:
    """All that finding a pack's entities (or `only` one) needs, as JSON.

    Lists come first, then patterns, then resolvers: the order that decides between two values of
    the same stretch of text.
    """
    kinds = [(spec.resolver is not None, not spec.values) for spec in pack.entities.values()]
    ordered = sorted(zip(kinds, pack.entities.values(), strict=True), key=lambda item: item[0])
    return {
        "entities": [_described(spec) for _, spec in ordered if only in (None, spec.entity)],
        "vocabulary": sorted(_vocabulary(pack)),
    }


def _described(entity: EntitySpec) -> dict[str, Any]:
    if entity.values:
        values = {key: dict(value.forms) for key, value in entity.values.items()}
        return {"name": entity.entity, "values": values, "fuzzy": entity.fuzzy}
    if entity.pattern:
        return {"name": entity.entity, "pattern": entity.pattern, "check": entity.check}
    return {"name": entity.entity, "resolver": entity.resolver, "prefer": entity.prefer}


def _vocabulary(pack: Pack) -> set[str]:
    """Words that people are known to say, which a typing mistake is therefore not read into."""
    texts = [
        text
        for intent in pack.intents.values()
        for table in (intent.utterances, intent.not_this)
        for variants in table.values()
        for text in variants
    ]
    texts += [text for rule in pack.rules.values() for text in rule.values()]
    texts += [t for r in pack.replies.values() for texts in r.variants.values() for t in texts]
    return {word for text in texts for word in words(re.sub(r"\{\w+\}|<\w+>", " ", text))}


Finder = Callable[[str, Tokens, str, date], Iterator[tuple[int, int, Any, float]]]
"""(text, its tokens, language, today) -> first code point, the one after the last, value,
confidence."""


class EntityFinder:
    """Finds the entities of a spec. `today` is asked at each call: what "tomorrow" means moves."""

    def __init__(self, spec: Mapping[str, Any], today: Callable[[], date] = date.today) -> None:
        vocabulary = frozenset(spec.get("vocabulary", ()))
        self.today = today
        self.finders: dict[str, Finder] = {
            entity["name"]: _finder(entity, vocabulary) for entity in spec["entities"]
        }

    def find(self, text: str, language: str, today: date | None = None) -> list[Found]:
        """Entities in the order of the text; of two that overlap the longer one, then the surer
        one, then the one that comes first in the spec."""
        tokens = tokenize(text)
        today = today or self.today()
        found = [
            (start - end, -confidence, order, Found(name, value, start, end, confidence))
            for order, (name, finder) in enumerate(self.finders.items())
            for start, end, value, confidence in finder(text, tokens, language, today)
        ]
        found.sort(key=lambda item: (*item[:3], item[3].start))
        taken = bytearray(len(text))
        kept = []
        for *_, item in found:
            if 1 not in taken[item.start : item.end]:
                taken[item.start : item.end] = b"\1" * (item.end - item.start)
                kept.append(item)
        return sorted(kept, key=lambda item: item.start)


def examples_of(entity: EntitySpec, language: str) -> list[tuple[str, Any]]:
    """`(surface, value)` pairs that stand for a pattern or resolver in samples and grammars: the
    pack's own, else fixed ones; dates as they read on `EXAMPLE_DAY`."""
    own = entity.examples.get(language, ())
    surfaces = own or EXAMPLES.get(entity.resolver or "", {}).get(language, ())
    finder = EntityFinder({"entities": [_described(entity)]}, today=lambda: EXAMPLE_DAY)
    values = [(surface, finder.find(surface, language)) for surface in surfaces]
    return [(surface, found[0].value if found else surface) for surface, found in values]


def _finder(entity: Mapping[str, Any], vocabulary: frozenset[str]) -> Finder:
    if "values" in entity:
        return _list_finder(entity, vocabulary)
    if "pattern" in entity:
        return _pattern_finder(entity)
    resolve = RESOLVERS_BY_NAME[entity["resolver"]]
    prefer = entity.get("prefer", "year")

    def find(
        text: str, tokens: Tokens, language: str, today: date
    ) -> Iterator[tuple[int, int, Any, float]]:
        for first, last, value, confidence in resolve(text, tokens, language, today, prefer):
            yield tokens[first].start, tokens[last - 1].end, value, confidence

    return find


def _list_finder(entity: Mapping[str, Any], vocabulary: frozenset[str]) -> Finder:
    values = ValueList(
        value_forms(entity["values"]), fuzzy=bool(entity.get("fuzzy")), vocabulary=vocabulary
    )

    def find(
        text: str, tokens: Tokens, language: str, today: date
    ) -> Iterator[tuple[int, int, Any, float]]:
        for first, last, value, confidence in values.find(tokens):
            yield tokens[first].start, tokens[last - 1].end, value, confidence

    return find


def _pattern_finder(entity: Mapping[str, Any]) -> Finder:
    pattern = re.compile(entity["pattern"], re.IGNORECASE)
    check = CHECKS_BY_NAME.get(entity.get("check") or "")

    def find(
        text: str, tokens: Tokens, language: str, today: date
    ) -> Iterator[tuple[int, int, Any, float]]:
        for match in pattern.finditer(text):
            if match[0] and len(match[0]) <= MAX_PATTERN_CHARS and (not check or check(match[0])):
                yield match.start(), match.end(), match[0], 1.0

    return find
