"""trainer/ngrams.py"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.ngrams import BEGIN, NGrams, estimate, mix, write_arpa
from trainer.recipes.phrases import general_english

sentences = st.lists(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5).map(" ".join),
    min_size=1,
    max_size=6,
)


def totals(model: NGrams) -> list[float]:
    """The sum over the next word after every history that the model lists, and after none."""
    histories = {ngram[:-1] for ngram in model.probabilities}
    return [sum(model.probability((*h, word)) for word in model.words) for h in histories]


@given(sentences)
def test_probabilities_sum_to_one(text: list[str]) -> None:
    assert totals(estimate(text)) == pytest.approx([1.0] * len(totals(estimate(text))))


@given(sentences, sentences, st.floats(0.1, 0.9))
def test_a_mixture_sums_to_one_and_blends(
    first: list[str], second: list[str], weight: float
) -> None:
    one, other = estimate(first), estimate(second, order=2)
    mixed = mix(one, other, weight)
    assert totals(mixed) == pytest.approx([1.0] * len(totals(mixed)))
    for ngram in one.probabilities:
        expected = weight * one.probability(ngram) + (1 - weight) * other.probability(ngram)
        assert mixed.probability(ngram) == pytest.approx(expected)


def test_what_was_said_is_likelier_than_what_was_not() -> None:
    model = estimate(["where is my order", "where is my card", "block my card"])
    assert model.probability(("is", "my")) > model.probability(("is", "card"))
    assert model.probability((BEGIN, "where")) > model.probability((BEGIN, "order"))
    assert model.probability(("my", "parrot")) == 0


def test_arpa_is_what_the_recogniser_reads(tmp_path: Path) -> None:
    from pocketsphinx import Config, LogMath, NGramModel

    model = estimate(["where is my order", "block my card"])
    write_arpa(model, tmp_path / "a.arpa")
    logs = LogMath()
    read = NGramModel(Config(), logs, str(tmp_path / "a.arpa"))
    for ngram in [("order",), ("my", "order"), ("is", "my", "order"), ("block", "my", "order")]:
        expected = model.probability(ngram)
        assert logs.exp(read.prob(list(reversed(ngram)))) == pytest.approx(expected, rel=0.01)


def test_general_english_is_read_from_the_engines_own_file() -> None:
    model = general_english()
    assert len(model.words) == 10_001
    assert model.probability(("thank", "you")) > 0.5
    assert model.probability(("of", "the")) > model.probability(("of", "of")) * 20
    after = sum(model.probability(("hello", word)) for word in model.words)
    assert after == pytest.approx(1.0)
