"""The one template syntax of packs: `(a|b)`, `[optional]`, `{entity}`, `<rule>`.

hassil parses it; its tree is walked once for samples and once for the JSGF of the speech grammar.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    TextChunk,
)
from hassil.parse_expression import parse_sentence
from hassil.parser import ParseError

if TYPE_CHECKING:
    from govor.domains import Pack

Lists = Mapping[str, Sequence[tuple[str, Any]]]
"""Entity -> its `(surface, value)` pairs."""
_Piece = str | tuple[str, str, Any]
"""Text, or `(entity, surface, value)`."""

MAX_DEPTH = 20
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_SPOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")


class TemplateError(ValueError):
    """A template that cannot be read."""


@dataclass(frozen=True)
class Span:
    """An entity in a sample; `start` and `end` count code points."""

    entity: str
    value: Any
    start: int
    end: int


@dataclass(frozen=True)
class Sample:
    """One sentence that a template stands for."""

    text: str
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Template:
    """A parsed template; rules are already in their places."""

    text: str
    tree: Expression

    def entities(self) -> list[str]:
        """The entities it names, in order, each once."""
        return list(dict.fromkeys(_references(self.tree)))

    def count(self, lists: Lists) -> int:
        """How many sentences it stands for, doublets counted."""
        return _count(self.tree, lists)

    def sample(self, rng: random.Random, lists: Lists) -> Sample:
        """One sentence; each choice is even, so that a long list outweighs nothing."""
        return _join(_draw(self.tree, rng, lists))

    def expand(self, lists: Lists, limit: int = 100_000) -> Iterator[Sample]:
        """All different sentences in order; when there are more than `limit`, that many of them,
        drawn with a fixed seed."""
        seen: set[str] = set()
        if self.count(lists) <= limit:
            samples: Iterable[Sample] = map(_join, _all(self.tree, lists))
        else:
            rng = random.Random(self.text)
            samples = (self.sample(rng, lists) for _ in range(4 * limit))
        for sample in samples:
            if sample.text not in seen:
                seen.add(sample.text)
                yield sample
                if len(seen) == limit:
                    return


def parse(text: str, rules: Mapping[str, str] | None = None) -> Template:
    """Raises TemplateError: unbalanced brackets, an unknown or endless rule, a bad name."""
    tree = _parse(text, rules or {}, ())
    if not any(True for _ in _leaves(tree)):
        raise TemplateError(f"{text!r} is empty")
    return Template(text, tree)


def pack_lists(pack: Pack, language: str) -> dict[str, list[tuple[str, Any]]]:
    """What stands for each entity of a pack in samples and grammars: all forms of list values;
    examples of patterns and resolvers."""
    from govor.entities import examples_of

    lists: dict[str, list[tuple[str, Any]]] = {}
    for name, spec in pack.entities.items():
        if spec.values:
            lists[name] = [
                (form, key)
                for key, value in spec.values.items()
                for form in value.forms.get(language, ())
            ]
        else:
            lists[name] = examples_of(spec, language)
    return lists


def to_jsgf(name: str, templates: Iterable[Template], lists: Lists) -> str:
    """A JSGF grammar of the templates, in lower-case words; entities become rules.

    What cannot be spoken is left out: surfaces and sentences with digits or without words.
    """
    used: dict[str, None] = {}
    sentences = []
    for template in templates:
        used.update(dict.fromkeys(template.entities()))
        if sentence := _jsgf(template.tree, lists):
            sentences.append(sentence)
    rules = [f"public <utterance> = {_either(sentences)};"]
    for entity in used:
        surfaces = _either(_spoken(surface) for surface, _ in lists.get(entity, ()))
        rules.append(f"<{entity}> = {surfaces or '<VOID>'};")
    return "\n".join(["#JSGF V1.0 UTF-8;", f"grammar {name};", *rules]) + "\n"


def _parse(text: str, rules: Mapping[str, str], within: tuple[str, ...]) -> Expression:
    try:
        tree = parse_sentence(text).expression
    except ParseError as error:
        raise TemplateError(f"{text!r}: {error}") from None
    except AssertionError:  # hassil's word for brackets with nothing between them
        raise TemplateError(f"{text!r}: empty brackets") from None
    return _inline(tree, text, rules, within)


def _inline(
    node: Expression, text: str, rules: Mapping[str, str], within: tuple[str, ...]
) -> Expression:
    """The tree with each rule's own tree in its place, and every name checked."""
    if isinstance(node, Permutation):
        raise TemplateError(f"{text!r}: write \\; for a semicolon")
    if isinstance(node, ListReference):
        if not _NAME.fullmatch(node.list_name) or node.list_name != node.slot_name:
            raise TemplateError(f"{text!r}: {{{node.list_name}}} is not the name of an entity")
    elif isinstance(node, RuleReference):
        rule = node.rule_name
        if rule not in rules:
            raise TemplateError(f"{text!r}: there is no rule <{rule}>")
        if rule in within or len(within) > MAX_DEPTH:
            raise TemplateError(f"{text!r}: the rule <{rule}> holds itself")
        return _parse(rules[rule], rules, (*within, rule))
    elif isinstance(node, Group):
        node.items = [_inline(item, text, rules, within) for item in node.items]
    return node


def _leaves(node: Expression) -> Iterator[Expression]:
    if isinstance(node, Group):
        for item in node.items:
            yield from _leaves(item)
    elif not isinstance(node, TextChunk) or node.original_text.strip():
        yield node


def _references(node: Expression) -> Iterator[str]:
    return (leaf.list_name for leaf in _leaves(node) if isinstance(leaf, ListReference))


def _surfaces(node: ListReference, lists: Lists) -> Sequence[tuple[str, Any]]:
    if not lists.get(node.list_name):
        raise TemplateError(f"there is nothing to put for {{{node.list_name}}}")
    return lists[node.list_name]


def _count(node: Expression, lists: Lists) -> int:
    if isinstance(node, ListReference):
        return len(_surfaces(node, lists))
    if isinstance(node, Group):
        counts = [_count(item, lists) for item in node.items]
        if isinstance(node, Alternative):
            return sum(counts)
        total = 1
        for count in counts:
            total *= count
        return total
    return 1


def _draw(node: Expression, rng: random.Random, lists: Lists) -> list[_Piece]:
    if isinstance(node, TextChunk):
        return [node.original_text]
    if isinstance(node, ListReference):
        return [(node.list_name, *rng.choice(_surfaces(node, lists)))]
    assert isinstance(node, Group)
    if isinstance(node, Alternative):
        return _draw(rng.choice(node.items), rng, lists)
    return [piece for item in node.items for piece in _draw(item, rng, lists)]


def _all(node: Expression, lists: Lists) -> Iterator[list[_Piece]]:
    if isinstance(node, TextChunk):
        yield [node.original_text]
    elif isinstance(node, ListReference):
        for surface, value in _surfaces(node, lists):
            yield [(node.list_name, surface, value)]
    elif isinstance(node, Alternative):
        for item in node.items:
            yield from _all(item, lists)
    elif isinstance(node, Group):
        for parts in itertools.product(*(list(_all(item, lists)) for item in node.items)):
            yield [piece for part in parts for piece in part]


def _join(pieces: list[_Piece]) -> Sample:
    """The sentence: one space between words, none at the ends or before a comma or full stop."""
    text = ""
    spans = []
    for piece in pieces:
        entity, surface, value = ("", piece, None) if isinstance(piece, str) else piece
        for ch in surface if not entity else surface.strip():
            if ch.isspace():
                text += "" if not text or text[-1] == " " else " "
            else:
                text = text.rstrip() + ch if ch in ",.!?" and text.endswith(" ") else text + ch
        if entity:
            spans.append(Span(entity, value, len(text) - len(" ".join(surface.split())), len(text)))
    return Sample(text.rstrip(), tuple(spans))


def _jsgf(node: Expression, lists: Lists) -> str | None:
    """The node in JSGF; "" when it says nothing, None when it cannot be spoken."""
    if isinstance(node, TextChunk):
        return _spoken(node.original_text)
    if isinstance(node, ListReference):
        return f"<{node.list_name}>"
    assert isinstance(node, Group)
    if isinstance(node, Alternative):
        return _bracketed(_jsgf(item, lists) for item in node.items)
    runs = [_jsgf(run[0], lists) if len(run) == 1 else _glued(run, lists) for run in _runs(node)]
    return None if None in runs else " ".join(filter(None, runs))


def _bracketed(texts: Iterable[str | None]) -> str | None:
    spoken = [text for text in texts if text is not None]
    inner = _either(spoken)
    if not inner:
        return "" if spoken else None
    return f"({inner})" if all(spoken) else f"[{inner}]"


def _runs(node: Group) -> Iterator[list[Expression]]:
    """The items of a sequence, those that share a word (`star[s]`) together."""
    run: list[Expression] = []
    for item in node.items:
        if run and not _glues(run[-1], item):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _glues(left: Expression, right: Expression) -> bool:
    """Does a word begin in one and go on in the other? Brackets count as letters."""
    before = left.original_text[-1:] if isinstance(left, TextChunk) else "x"
    after = right.original_text[:1] if isinstance(right, TextChunk) else "x"
    return all(ch.isalnum() or ch in "'-" for ch in before + after) and bool(before and after)


def _glued(run: list[Expression], lists: Lists) -> str | None:
    pieces = _all(Group(items=run), lists)
    return _bracketed(_spoken(_join(sentence).text) for sentence in pieces)


def _either(texts: Iterable[str | None]) -> str:
    return " | ".join(dict.fromkeys(filter(None, texts)))


def _spoken(text: str) -> str | None:
    """The words of a text; None when a digit is in it, since nobody says a digit."""
    if any(ch.isdigit() for ch in text):
        return None
    return " ".join(_SPOKEN.findall(text.lower().replace("’", "'")))
