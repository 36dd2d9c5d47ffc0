"""services/nlu/backends/features.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.nlu.backends.features import (
    FIRST_ROW,
    MAX_WORDS,
    UNKNOWN,
    Features,
    document_frequencies,
    keys_of,
)

TEXTS = ["wake me up at nine", "play the radio", "включи радио"]


@pytest.fixture
def features() -> Features:
    keys = sorted({key for text in TEXTS for word in text.split() for key in keys_of(word)})
    return Features(keys, document_frequencies(TEXTS, 512))


def test_a_word_is_its_own_key_and_its_grams() -> None:
    assert len(keys_of("ab")) == 1 + 2  # <ab, ab>; <ab> is the word itself
    assert keys_of("7:30") == keys_of("9:15")
    assert len(set(keys_of("radio"))) == len(keys_of("radio"))


def test_an_unknown_word_keeps_the_grams_that_are_known(features: Features) -> None:
    known, misspelt, foreign = (features.rows(word) for word in ("radio", "radioo", "xyzzy"))
    assert known[0] >= FIRST_ROW
    assert misspelt[0] == UNKNOWN
    assert set(misspelt[1:]) < set(known[1:])
    assert foreign == (UNKNOWN,)


def test_the_sparse_vector_has_unit_length(features: Features) -> None:
    encoded = features.encode("play the radio again")
    assert np.linalg.norm(encoded.weights) == pytest.approx(1)
    assert len(set(encoded.buckets.tolist())) == len(encoded.buckets)


def test_a_text_without_words_has_no_rows(features: Features) -> None:
    assert features.encode(" ...").rows == ()


def test_long_texts_are_cut_for_the_trunk_alone(features: Features) -> None:
    encoded = features.encode("radio " * 400)
    assert len(encoded.rows) == len(encoded.words) == MAX_WORDS


def test_what_is_saved_encodes_the_same(features: Features, tmp_path: Path) -> None:
    features.save(tmp_path / "features.json")
    again = Features.load(tmp_path / "features.json")
    for text in [*TEXTS, "unseen words", "7:30"]:
        before, after = features.encode(text), again.encode(text)
        assert before.rows == after.rows
        np.testing.assert_array_equal(before.buckets, after.buckets)
        np.testing.assert_array_equal(before.weights, after.weights)
