"""The phrase grammar that a pack's embedded generator learns: read it, draw texts, recognise them.

    domains/<pack>/corpus/corpus.yaml      fields, prompt, structures, placeholders, limits
    domains/<pack>/corpus/<language>.txt   patterns and rules

A language's file has two kinds of sections, a template (`(a|b)`, `[x]`, `<rule>`) a line:

    == mid bright love        patterns: a sentence each; position, then the values of the keys that
                              `sections` names (`a,b` any of these, `*` or nothing: any)
    == <gain>                 a rule: each line is one alternative

A text is one structure (a sequence of positions) with a pattern for each position, never the same
pattern nor the same line of a rule twice. `<name>` of a placeholder stays in the text: code fills
it with the form of a field's value (the sign in the dative), so a model cannot get it wrong.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from hassil.expression import Alternative, RuleReference, Sequence, TextChunk
from hassil.parse_expression import parse_sentence
from hassil.parser import ParseError
from pydantic import BaseModel, ConfigDict, ValidationError

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+")
_PLACEHOLDER = re.compile(r"<\w+>")
_GLUED = ".,!?:;…"


class CorpusError(Exception):
    """A corpus that cannot be read; the message names file and line."""


class Placeholder(BaseModel):
    """A token that code replaces by the form of a field's value: `forms[language][value]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    forms: dict[str, dict[str, str]]


class Names(BaseModel):
    """`forms[language][value]`: words, lower case, by which a text names a value of the field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    forms: dict[str, dict[str, list[str]]]


class Limits(BaseModel):
    """What the service's filter asks of a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_chars: int
    max_chars: int
    endings: str = ".!?…"
    names: Names


class Plan(BaseModel):
    """`corpus.yaml`: all that the languages share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    licence: str
    source: str
    fields: dict[str, list[str]]
    defaults: dict[str, str]
    draws: dict[str, list[str]]
    prompt: list[str]
    sections: list[str]
    structures: list[str]
    placeholders: dict[str, Placeholder]
    limits: Limits

    def tokens(self) -> dict[str, Placeholder]:
        """The placeholders by token (`<day>`), with a capitalised twin (`<Day>`) where it differs.

        A sentence that begins with a placeholder takes the twin.
        """
        tokens = {}
        for name, placeholder in self.placeholders.items():
            tokens[f"<{name}>"] = placeholder
            upper = {
                language: {value: text[0].upper() + text[1:] for value, text in forms.items()}
                for language, forms in placeholder.forms.items()
            }
            if upper != placeholder.forms:
                tokens[f"<{name[0].upper()}{name[1:]}>"] = placeholder.model_copy(
                    update={"forms": upper}
                )
        return tokens

    def fills(self, language: str, values: Mapping[str, str]) -> dict[str, str]:
        """What each token of the language stands for, given the fields' values."""
        return {
            token: placeholder.forms[language][values[placeholder.field]]
            for token, placeholder in self.tokens().items()
            if language in placeholder.forms
        }


def fill(text: str, fills: Mapping[str, str]) -> str:
    """The text with its placeholders replaced."""
    return _PLACEHOLDER.sub(lambda token: fills[token[0]], text)


@dataclass(frozen=True)
class Pattern:
    """One sentence template. `when[key]` lists the values it is for; a key not there is free."""

    id: str
    position: str
    when: Mapping[str, frozenset[str]]
    node: Any

    def fits(self, position: str, values: Mapping[str, str]) -> bool:
        return self.position == position and all(
            values[key] in allowed for key, allowed in self.when.items()
        )


@dataclass(frozen=True)
class Text:
    """A text that was drawn: placeholders unfilled; `nats` is -log of its derivation's chance."""

    text: str
    patterns: tuple[str, ...]
    nats: float


@dataclass
class _Draw:
    """The state of one draw: its randomness, lines of rules already used, and the chance so far."""

    rng: random.Random
    used: set[tuple[str, int]] = field(default_factory=set)
    nats: float = 0.0

    def choose(self, count: int, taken: Callable[[int], bool] = lambda _: False) -> int:
        free = [i for i in range(count) if not taken(i)]
        if not free:
            raise LookupError
        self.nats += math.log(len(free))
        return self.rng.choice(free)


class Grammar:
    """The patterns and rules of one language."""

    def __init__(
        self, language: str, plan: Plan, patterns: list[Pattern], rules: dict[str, list[Any]]
    ) -> None:
        self.language = language
        self.plan = plan
        self.patterns = patterns
        self.rules = rules

    def draw(self, rng: random.Random, values: Mapping[str, str], tries: int = 100) -> Text:
        """One text for these values of the section keys, its length within the limits.

        Raises `CorpusError` when `tries` draws gave none: the grammar is too small.
        """
        for _ in range(tries):
            try:
                text = self._draw_once(_Draw(rng), values)
            except LookupError:
                continue
            if self._fits_limits(text.text):
                return text
        raise CorpusError(f"{self.language}: no text for {dict(values)} within the limits")

    def pattern_of(self, sentence: str) -> str | None:
        """The id of the first pattern that derives the sentence, its placeholders filled or not."""
        text = " ".join(sentence.casefold().split())
        memo: dict[tuple[str, int], set[int]] = {}
        for pattern in self.patterns:
            if len(text) in self._ends(pattern.node, text, {0}, memo):
                return pattern.id
        return None

    def counts(self) -> dict[str, int]:
        """Number of patterns and of slot alternatives (lines of rules)."""
        lines = sum(len(nodes) for nodes in self.rules.values())
        return {"patterns": len(self.patterns), "alternatives": lines}

    def unused_rules(self) -> set[str]:
        """Rules that no pattern reaches."""
        reached: set[str] = set()
        todo = [name for pattern in self.patterns for name in references(pattern.node)]
        while todo:
            name = todo.pop()
            if name in self.rules and name not in reached:
                reached.add(name)
                todo += [other for node in self.rules[name] for other in references(node)]
        return set(self.rules) - reached

    def _draw_once(self, state: _Draw, values: Mapping[str, str]) -> Text:
        structures = self.plan.structures
        structure = structures[state.choose(len(structures))]
        sentences: list[str] = []
        ids: list[str] = []
        for position in structure.split():
            fitting = [p for p in self.patterns if p.fits(position, values) and p.id not in ids]
            pattern = fitting[state.choose(len(fitting))]
            ids.append(pattern.id)
            sentences.append(self._sentence(pattern, state))
        return Text(" ".join(sentences), tuple(ids), state.nats)

    def _sentence(self, pattern: Pattern, state: _Draw) -> str:
        text = " ".join("".join(self._words(pattern.node, state)).split())
        text = re.sub(rf" ([{_GLUED}])", r"\1", text)
        if not text.startswith("<"):
            return text[0].upper() + text[1:]
        twin = f"<{text[1].upper()}{text[2:]}"
        return twin if twin[: twin.index(">") + 1] in self._forms else text

    def _words(self, node: Any, state: _Draw) -> Iterator[str]:
        if isinstance(node, TextChunk):
            yield node.original_text
        elif isinstance(node, Alternative):
            yield from self._words(node.items[state.choose(len(node.items))], state)
        elif isinstance(node, Sequence):
            for item in node.items:
                yield from self._words(item, state)
        elif node.rule_name in self.rules:
            name, lines = node.rule_name, self.rules[node.rule_name]
            chosen = state.choose(len(lines), lambda i: (name, i) in state.used)
            state.used.add((name, chosen))
            yield from self._words(lines[chosen], state)
        else:
            yield f"<{node.rule_name}>"

    def _fits_limits(self, text: str) -> bool:
        """Whether the text is within the limits with its longest and its shortest forms."""
        limits = self.plan.limits
        shortest = longest = len(text)
        for token, forms in self._forms.items():
            lengths = [len(form) - len(token) for form in forms]
            shortest += text.count(token) * min(lengths)
            longest += text.count(token) * max(lengths)
        return limits.min_chars <= shortest and longest <= limits.max_chars

    @cached_property
    def _forms(self) -> dict[str, list[str]]:
        """Every form in this language of every placeholder, by token."""
        return {
            token: sorted(set(placeholder.forms[self.language].values()))
            for token, placeholder in self.plan.tokens().items()
            if self.language in placeholder.forms
        }

    def _ends(
        self, node: Any, text: str, starts: set[int], memo: dict[tuple[str, int], set[int]]
    ) -> set[int]:
        """Where a match of `node` that begins at one of `starts` may end."""
        if not starts:
            return starts
        if isinstance(node, TextChunk):
            return _literal_ends(node.original_text, text, starts)
        if isinstance(node, Alternative):
            return set().union(*(self._ends(item, text, starts, memo) for item in node.items))
        if isinstance(node, Sequence):
            for item in node.items:
                starts = self._ends(item, text, starts, memo)
            return starts
        name, ends = node.rule_name, set()
        for start in starts:
            if (name, start) not in memo:
                memo[name, start] = self._rule_ends(name, text, start, memo)
            ends |= memo[name, start]
        return ends

    def _rule_ends(
        self, name: str, text: str, start: int, memo: dict[tuple[str, int], set[int]]
    ) -> set[int]:
        if name in self.rules:
            return set().union(
                *(self._ends(line, text, {start}, memo) for line in self.rules[name])
            )
        token = f"<{name}>"
        return set().union(
            *(_literal_ends(form, text, {start}) for form in [token, *self._forms[token]])
        )


def _literal_ends(literal: str, text: str, starts: set[int]) -> set[int]:
    """Ends of `literal` in `text` (case folded, spaces single) from `starts`.

    A space of the literal needs one in the text, except where an optional that was left out, the
    sentence's edge or punctuation has already closed the gap.
    """
    closers = ("", " ", *_GLUED)
    for piece in re.split(r"(\s+)", literal.casefold()):
        if piece.isspace():
            starts = {
                start + 1 if text[start : start + 1] == " " else start
                for start in starts
                if text[start : start + 1] in closers or text[start - 1 : start] in ("", " ")
            }
        else:
            starts = {start + len(piece) for start in starts if text.startswith(piece, start)}
    return starts


def sentences(text: str) -> list[str]:
    """The sentences of a text, cut after their final punctuation."""
    return _SENTENCE_END.split(text.strip())


def references(node: Any) -> Iterator[str]:
    """The names in `<...>` of a template."""
    if isinstance(node, RuleReference):
        yield node.rule_name
    elif not isinstance(node, TextChunk):
        for item in node.items:
            yield from references(item)


def read_plan(folder: Path) -> Plan:
    """`corpus.yaml`. Raises `CorpusError`."""
    file = folder / "corpus.yaml"
    try:
        return Plan.model_validate(yaml.safe_load(file.read_text("utf-8")))
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise CorpusError(f"{file.name}: {error}") from error


def read_grammar(folder: Path, language: str) -> Grammar:
    """The grammar of a language, every name in it resolved. Raises `CorpusError`."""
    plan = read_plan(folder)
    file = folder / f"{language}.txt"
    patterns: list[Pattern] = []
    rules: dict[str, list[Any]] = {}
    section: tuple[str, dict[str, frozenset[str]]] | None = None
    for number, raw in enumerate(file.read_text("utf-8").splitlines(), 1):
        line = raw.strip()
        try:
            if line.startswith("=="):
                section = _section(line.removeprefix("==").split(), plan)
            elif line and not line.startswith("#"):
                if section is None:
                    raise CorpusError("a template before the first section")
                name, when = section
                node = parse_sentence(line.replace(";", "\\;")).expression
                if name.startswith("<"):
                    rules.setdefault(name.strip("<>"), []).append(node)
                else:
                    patterns.append(Pattern(f"{language}:{number}", name, when, node))
        except (CorpusError, ParseError, AssertionError) as error:
            raise CorpusError(f"{file.name}, line {number}: {error}") from error
    grammar = Grammar(language, plan, patterns, rules)
    _check_names(grammar, file.name)
    return grammar


def _section(words: list[str], plan: Plan) -> tuple[str, dict[str, frozenset[str]]]:
    """A header's name or position, and the values it is for."""
    known = plan.fields | plan.draws
    when = {}
    for key, value in zip(plan.sections, words[1:], strict=False):
        if value != "*":
            when[key] = frozenset(value.split(","))
            if not when[key] <= set(known[key]):
                raise CorpusError(f"{value} is no {key}")
    if not words or len(words) > 1 + len(plan.sections):
        raise CorpusError("a header is a position and the values of " + ", ".join(plan.sections))
    return words[0], when


def _check_names(grammar: Grammar, name: str) -> None:
    known = set(grammar.rules) | {
        token.strip("<>")
        for token in grammar.plan.placeholders
        if grammar.language in grammar.plan.placeholders[token].forms
    }
    nodes = [pattern.node for pattern in grammar.patterns]
    nodes += [line for lines in grammar.rules.values() for line in lines]
    unknown = {reference for node in nodes for reference in references(node)} - known
    if unknown:
        raise CorpusError(f"{name}: no rule or placeholder {', '.join(sorted(unknown))}")
    positions = {p for structure in grammar.plan.structures for p in structure.split()}
    strays = {pattern.position for pattern in grammar.patterns} - positions
    if strays:
        raise CorpusError(f"{name}: no structure has {', '.join(sorted(strays))}")
