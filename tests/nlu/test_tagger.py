"""services/nlu/backends/tagger.py"""

from __future__ import annotations

import itertools

import numpy as np

from services.nlu.backends.tagger import allowed_steps, best_path, spans, with_neighbours

TAGS = ["B-day", "B-time", "I-day", "I-time", "O"]


def test_the_best_path_is_the_best_of_all() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        scores = rng.normal(size=(4, 5)).astype(np.float32)
        steps = rng.normal(size=(6, 5)).astype(np.float32)

        def total(path: tuple[int, ...], scores=scores, steps=steps) -> float:  # type: ignore[no-untyped-def]
            pairs = zip((5, *path), path, strict=False)
            return float(sum(steps[a, b] for a, b in pairs) + sum(scores[range(4), path]))

        best = max(itertools.product(range(5), repeat=4), key=total)
        assert best_path(scores, steps) == list(best)


def test_what_bio_forbids_does_not_come_out() -> None:
    rng = np.random.default_rng(2)
    steps = allowed_steps(TAGS)
    for _ in range(50):
        tags = [TAGS[i] for i in best_path(rng.normal(size=(6, 5)).astype(np.float32), steps)]
        for before, tag in zip(["O", *tags], tags, strict=False):
            assert not tag.startswith("I-") or before in (f"B-{tag[2:]}", tag)


def test_spans_of_a_sequence() -> None:
    tags = ["B-day", "I-day", "B-day", "O", "B-time"]
    assert list(spans(tags)) == [("day", 0, 2), ("day", 2, 3), ("time", 4, 5)]
    assert list(spans([])) == []
    assert best_path(np.zeros((0, 5), np.float32), allowed_steps(TAGS)) == []


def test_neighbours_stand_beside_each_word() -> None:
    states = np.array([[1], [2], [3]], np.float32)
    assert with_neighbours(states).tolist() == [[1, 0, 2], [2, 1, 3], [3, 2, 0]]
    assert with_neighbours(states[:0]).shape == (0, 3)
