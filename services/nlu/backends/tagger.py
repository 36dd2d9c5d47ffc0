"""Slots: a linear layer over the trunk's word states and the best BIO sequence (Viterbi).

A word is judged by its own state and those of its two neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass
class Tagger:
    """`weights` [tags, 3 * width], `bias` [tags], and `steps` [tags + 1, tags]: the score of a tag
    after another, the last row for the first word. What BIO forbids is -1e4."""

    tags: list[str]
    weights: Floats
    bias: Floats
    steps: Floats

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The arrays by their names in a head's file."""
        return {"tag_weights": self.weights, "tag_bias": self.bias, "tag_steps": self.steps}

    @classmethod
    def of(cls, tags: list[str], tensors: Mapping[str, Floats]) -> Tagger:
        """The tagger of a head's file."""
        return cls(tags, tensors["tag_weights"], tensors["tag_bias"], tensors["tag_steps"])

    def tag(self, states: Floats) -> list[str]:
        """A tag a word for `states` [words, width]."""
        scores = with_neighbours(states) @ self.weights.T + self.bias
        return [self.tags[i] for i in best_path(scores, self.steps)]


def with_neighbours(states: Floats) -> Floats:
    """States [words, width] -> [words, 3 * width]: each word's, the one before's, the next one's;
    zeros beyond the ends."""
    edge = np.zeros_like(states[:1])
    before = np.concatenate([edge, states[:-1]])
    after = np.concatenate([states[1:], edge])
    return np.concatenate([states, before, after], 1)


def allowed_steps(tags: Sequence[str]) -> Floats:
    """Steps of zeros, with -1e4 where BIO forbids: `I-x` follows `B-x` or `I-x` alone."""
    steps = np.zeros((len(tags) + 1, len(tags)), np.float32)
    for j, tag in enumerate(tags):
        if tag.startswith("I-"):
            follows = {f"B-{tag[2:]}", tag}
            steps[[i for i, before in enumerate([*tags, "^"]) if before not in follows], j] = -1e4
    return steps


def best_path(scores: Floats, steps: Floats) -> list[int]:
    """The best sequence for `scores` [words, tags]."""
    if not len(scores):
        return []
    total = scores[0] + steps[-1]
    back = []
    for row in scores[1:]:
        reached = total[:, None] + steps[:-1]
        back.append(reached.argmax(0))
        total = reached.max(0) + row
    path = [int(total.argmax())]
    for choice in reversed(back):
        path.append(int(choice[path[-1]]))
    return path[::-1]


def spans(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """The slots of a BIO sequence: name, first word, the word after the last."""
    start, name = 0, ""
    for i, tag in enumerate([*tags, "O"]):
        if name and tag != f"I-{name}":
            yield name, start, i
            name = ""
        if tag != "O" and not name:
            start, name = i, tag[2:]
