"""bench/quality_nlu.py: it measures the model, and not something else."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from govor.entities import Found
from govor.repository import Repository, Version
from services.nlu.backends import Parsed

pytest.importorskip("torch", reason="the trainer's extra is not installed")

from bench import quality_nlu

HOME = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def version() -> Version:
    repository = Repository(HOME / "var/none", HOME / "models")
    return repository.open("nlu", max(repository.versions("nlu")))


def test_random_weights_understand_nothing(version: Version, data: Path) -> None:
    measure = partial(quality_nlu.massive, version, data, seeds=1, rows=150, examples=3000)
    real, noise = measure(), measure(noise=True)
    for name, by_language in real.items():
        for language, scores in by_language.items():
            assert np.mean(scores) > 0.4, name
            assert np.mean(noise[name][language]) < 0.12, name


def test_one_mistake_in_twenty_characters() -> None:
    text, rng = "what is the weather like in paris on friday", random.Random(1)
    spoilt = [quality_nlu.mistyped(text, rng).split() for _ in range(50)]
    wrong = [sum(a != b for a, b in zip(text.split(), words, strict=True)) for words in spoilt]
    assert max(wrong) == 2
    assert np.mean(wrong) > 1.3


def test_found_slots_become_tags_of_the_collections_tokens() -> None:
    text = "wake me at nine am please"
    found = Found("time", "nine am", 11, 18, 1.0)
    parsed = Parsed("en", (), False, (found,))
    tags = quality_nlu._tags(text.split(), text, parsed)
    assert tags == ["O", "O", "O", "B-time", "I-time", "O"]
