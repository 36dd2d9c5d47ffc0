"""Word graphs: a JSGF grammar as the smallest automaton that accepts the same sentences.

pocketsphinx keeps two hash tables a state and an HMM an arc, and builds a JSGF as it is written, a
branch an alternative: the English horoscope pack takes 3207 states and 25 MB a process so, and
as its minimal automaton less than a fifth of both.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pocketsphinx

Arcs = list[dict[str, int]]
"""State -> word -> next state."""


@dataclass(frozen=True)
class Automaton:
    """Deterministic; it starts in state 0."""

    arcs: Arcs
    finals: frozenset[int]

    def accepts(self, words: list[str]) -> bool:
        state: int | None = 0
        for word in words:
            state = self.arcs[state].get(word) if state is not None else None
        return state in self.finals


def compile_jsgf(grammar: str) -> Automaton:
    """The minimal automaton of a grammar's public rule. Raises `ValueError` for no JSGF."""
    return minimised(_determinised(*_read(grammar)))


def minimised(automaton: Automaton) -> Automaton:
    """States that accept the same rests of sentences become one (Moore 1956)."""
    arcs = automaton.arcs
    block = [int(state in automaton.finals) for state in range(len(arcs))]
    count = len(set(block))
    while True:
        keys = [
            (block[state], frozenset((word, block[to]) for word, to in arcs[state].items()))
            for state in range(len(arcs))
        ]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        block = [numbers[key] for key in keys]
        if len(numbers) == count:
            break
        count = len(numbers)
    merged: Arcs = [{} for _ in range(count)]
    for state, leaving in enumerate(arcs):
        merged[block[state]] = {word: block[to] for word, to in leaving.items()}
    return Automaton(merged, frozenset(block[state] for state in automaton.finals))


def write_fsg(automaton: Automaton, name: str, path: Path) -> None:
    """pocketsphinx's text form. It knows one final state: the others lead there for nothing.

    From each state, going on by any of its arcs and ending there are equally likely.
    """
    end = len(automaton.arcs)
    arcs = []
    for state, leaving in enumerate(automaton.arcs):
        share = 1 / (len(leaving) + (state in automaton.finals) or 1)
        arcs += [f"TRANSITION {state} {to} {share:.6f} {w}" for w, to in sorted(leaving.items())]
        if state in automaton.finals:
            arcs.append(f"TRANSITION {state} {end} {share:.6f}")
    head = [f"FSG_BEGIN {name}", f"NUM_STATES {end + 1}", "START_STATE 0", f"FINAL_STATE {end}"]
    path.write_text("\n".join([*head, *arcs, "FSG_END", ""]), encoding="utf-8")


def _read(grammar: str) -> tuple[int, int, list[tuple[int, int, str]]]:
    """Start, end and arcs `(from, to, word)` as pocketsphinx parses the grammar; the empty word
    leads on for nothing."""
    decoder = pocketsphinx.Decoder(lm=None, dict=None, loglevel="FATAL")
    try:
        model = decoder.parse_jsgf(grammar.encode())
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"not a JSGF grammar: {error}") from error
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", suffix=".fsg") as file:
        model.writefile(file.name)
        lines = [line.split() for line in file]
    numbers = {fields[0]: int(fields[1]) for fields in lines if fields[0].endswith("_STATE")}
    arcs = [
        (int(fields[1]), int(fields[2]), "".join(fields[4:5]))
        for fields in lines
        if fields[0] == "TRANSITION"
    ]
    return numbers["START_STATE"], numbers["FINAL_STATE"], arcs


def _determinised(start: int, end: int, arcs: list[tuple[int, int, str]]) -> Automaton:
    """The subset construction."""
    leaving: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for source, to, word in arcs:
        leaving[source].append((word, to))

    def closed(states: set[int]) -> frozenset[int]:
        """The states with all that can be reached from them for nothing."""
        found, ahead = set(states), list(states)
        while ahead:
            for word, to in leaving[ahead.pop()]:
                if not word and to not in found:
                    found.add(to)
                    ahead.append(to)
        return frozenset(found)

    subsets = {closed({start}): 0}
    queue, table = list(subsets), []
    for subset in queue:
        by_word: dict[str, set[int]] = defaultdict(set)
        for state in subset:
            for word, to in leaving[state]:
                if word:
                    by_word[word].add(to)
        row = {}
        for word, reached in by_word.items():
            target = closed(reached)
            if target not in subsets:
                subsets[target] = len(subsets)
                queue.append(target)
            row[word] = subsets[target]
        table.append(row)
    return Automaton(table, frozenset(n for subset, n in subsets.items() if end in subset))
