"""Values of list entities: exact forms, and those one typing mistake away.

A mistake is one letter left out, added, replaced, or two neighbours swapped. It is forgiven in
words of `MIN_LETTERS` letters and more that are no words of the pack's own vocabulary ("cancel"
stays itself beside "cancer"). Words are looked up by what is left of them when one letter is
dropped, so that a word costs as many look-ups as it has letters, whatever the size of the list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from govor.entities.tokens import Tokens, words

MIN_LETTERS = 5
FUZZY_CONFIDENCE = 0.9
Match = tuple[int, int, object, float]
"""First token, token after the last, value, confidence."""


class ValueList:
    """The forms of one list entity in all its languages.

    Other languages' forms count too: people say "leo" in the middle of a Russian sentence.
    """

    def __init__(
        self, forms: Iterable[tuple[str, str]], *, fuzzy: bool, vocabulary: frozenset[str]
    ) -> None:
        self.vocabulary = vocabulary
        self.by_first: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
        self.near: dict[str, set[str]] = defaultdict(set)
        for form, value in forms:
            parts = words(form)
            if parts:
                self.by_first[parts[0]].append((parts, value))
            for part in parts if fuzzy else ():
                if len(part) >= MIN_LETTERS and part.isalpha():
                    for key in _dropped(part):
                        self.near[key].add(part)
        for candidates in self.by_first.values():
            candidates.sort(key=lambda item: -len(item[0]))

    def find(self, tokens: Tokens) -> Iterator[Match]:
        """The longest form at each place; an exact one before a mistaken one."""
        for first, token in enumerate(tokens):
            for word, mistakes in self._readings(token.word):
                match = self._match(tokens, first, word, mistakes)
                if match:
                    yield match
                    break

    def _readings(self, word: str) -> Iterator[tuple[str, int]]:
        if word in self.by_first:
            yield word, 0
        for meant in self._meant(word):
            if meant in self.by_first:
                yield meant, 1

    def _meant(self, word: str) -> list[str]:
        """The forms' words that this one may be a mistaken spelling of."""
        if not self.near or len(word) < MIN_LETTERS or len(word) > 40 or word in self.vocabulary:
            return []
        found = {meant for key in _dropped(word) for meant in self.near.get(key, ())}
        return sorted(meant for meant in found if meant != word and _one_apart(word, meant))

    def _match(self, tokens: Tokens, first: int, word: str, mistakes: int) -> Match | None:
        for parts, value in self.by_first[word]:
            last = first + len(parts)
            if last > len(tokens):
                continue
            wrong = mistakes
            for token, part in zip(tokens[first + 1 : last], parts[1:], strict=True):
                if token.word != part:
                    wrong += 1 if part in self._meant(token.word) else 2
            if wrong <= 1:
                return first, last, value, FUZZY_CONFIDENCE if wrong else 1.0
        return None


def value_forms(values: Mapping[str, Mapping[str, Sequence[str]]]) -> Iterator[tuple[str, str]]:
    """`(form, value)` of a spec's `values`."""
    for value, languages in values.items():
        for forms in languages.values():
            yield from ((form, value) for form in forms)


def _dropped(word: str) -> set[str]:
    return {word, *(word[:i] + word[i + 1 :] for i in range(len(word)))}


def _one_apart(a: str, b: str) -> bool:
    """Is one letter left out, added or replaced, or are two neighbours swapped?"""
    if len(a) > len(b):
        a, b = b, a
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    if len(a) < len(b):
        return len(b) - len(a) == 1 and a[start:] == b[start + 1 :]
    swapped = a[start + 1 : start + 2] + a[start : start + 1]
    return a[start + 1 :] == b[start + 1 :] or swapped + a[start + 2 :] == b[start:]
