"""services/generator/backends/sampling.py"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generator.backends.sampling import (
    Logits,
    Sampler,
    Sampling,
    choose,
    nucleus,
    penalise,
)


def logits_of(*probabilities: float) -> Logits:
    return np.log(np.array(probabilities, np.float32))


def drawn(logits: Logits, sampling: Sampling, count: int = 4000) -> Logits:
    """How often each token is chosen, over evenly spread uniform numbers."""
    tokens = [choose(logits, sampling, (at + 0.5) / count) for at in range(count)]
    return np.bincount(tokens, minlength=len(logits)) / count


def test_tokens_come_as_often_as_their_probability() -> None:
    shares = drawn(logits_of(0.5, 0.3, 0.15, 0.05), Sampling(temperature=1, top_p=1))
    assert shares == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=1e-3)


def test_temperature_sharpens() -> None:
    shares = drawn(logits_of(0.6, 0.4), Sampling(temperature=0.5, top_p=1))
    assert shares == pytest.approx([0.36 / 0.52, 0.16 / 0.52], abs=1e-3)


def test_the_nucleus_is_the_fewest_tokens_that_hold_top_p() -> None:
    shares = drawn(logits_of(0.05, 0.5, 0.15, 0.3), Sampling(temperature=1, top_p=0.7))
    assert shares == pytest.approx([0, 0.625, 0, 0.375], abs=1e-3)


def test_top_k_leaves_the_k_likeliest() -> None:
    shares = drawn(logits_of(0.05, 0.5, 0.15, 0.3), Sampling(temperature=1, top_p=1, top_k=3))
    assert shares == pytest.approx([0, 0.5 / 0.95, 0.15 / 0.95, 0.3 / 0.95], abs=1e-3)


def test_top_p_counts_what_top_k_left() -> None:
    sampling = Sampling(temperature=1, top_p=0.6, top_k=2)
    assert drawn(logits_of(0.4, 0.3, 0.3), sampling)[0] == pytest.approx(4 / 7, abs=1e-3)


def test_top_p_zero_is_the_likeliest_token() -> None:
    assert drawn(logits_of(0.2, 0.5, 0.3), Sampling(top_p=0)).tolist() == [0, 1, 0]


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=50), st.floats(0, 0.99))
def test_nucleus_is_what_sorting_everything_gives(weights: list[float], top_p: float) -> None:
    values = np.array(weights, np.float32)
    order = np.argsort(-values, kind="stable")
    running = np.cumsum(values[order], dtype=np.float64)
    size = int(np.searchsorted(running, top_p * values.sum(dtype=np.float64))) + 1
    assert nucleus(values, top_p).tolist() == order[:size].tolist()


def test_temperature_zero_is_greedy() -> None:
    sampler = Sampler(Sampling(temperature=0), np.random.default_rng(0), [])
    assert [sampler.draw(logits_of(0.3, 0.4, 0.3)) for _ in range(5)] == [1] * 5


def test_a_tiny_temperature_does_not_overflow() -> None:
    assert choose(np.array([-300, 300], np.float32), Sampling(temperature=1e-9), 0.5) == 1


def test_repetition_penalty_lowers_tokens_of_either_sign() -> None:
    logits = np.array([2, -2, 1], np.float32)
    penalise(logits, [0, 1, 1], 2)
    assert logits.tolist() == [1, -4, 1]


def test_some_tokens_are_never_drawn() -> None:
    sampler = Sampler(Sampling(temperature=0), np.random.default_rng(0), [], never=[1, 2])
    assert sampler.draw(logits_of(0.1, 0.6, 0.3)) == 0


def test_no_ngram_comes_twice() -> None:
    sampling = Sampling(temperature=1, top_p=1, no_repeat_ngram=3)
    sampler = Sampler(sampling, np.random.default_rng(0), [1, 0, 1])
    for _ in range(100):
        sampler.draw(logits_of(*[1 / 8] * 8))
    ngrams = list(zip(sampler.tokens, sampler.tokens[1:], sampler.tokens[2:], strict=False))
    assert len(set(ngrams)) == len(ngrams)


def test_the_same_seed_draws_the_same_tokens() -> None:
    def tokens(seed: int) -> list[int]:
        sampler = Sampler(Sampling(), np.random.default_rng(seed), [])
        return [sampler.draw(logits_of(*[1 / 64] * 64)) for _ in range(20)]

    assert tokens(1) == tokens(1) != tokens(2)
