"""services/stt/backends/sphinx_passes.py"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from govor.repository import Version
from services.stt.backends import RATE, Samples
from services.stt.backends.sphinx_passes import ACCEPTED, Decoded, Passes, _trust, in_common
from tests.stt.conftest import SENTENCES, Speak

texts = st.lists(st.sampled_from("abcd"), max_size=8)


@given(texts, texts)
def test_words_in_common_are_a_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    common = in_common(a, b)
    kept = iter(b)
    assert all(word in kept for word, shared in zip(a, common, strict=True) if shared)
    assert sum(common) == sum(in_common(b, a))


@pytest.fixture(scope="module")
def passes(version: Version) -> Passes:
    return Passes(version.folder, "few")


@pytest.mark.parametrize("sentence", SENTENCES)
def test_a_sentence_of_the_domain_comes_back_exactly(
    passes: Passes, speak: Speak, sentence: str
) -> None:
    heard = passes.recognise(speak(sentence), lambda: None)
    assert (heard.recognition, heard.text) == ("phrase", sentence)
    assert heard.confidence >= 0.5


@pytest.mark.parametrize(
    "sentence",
    ["my neighbour bought seven yellow bicycles", "the committee will never agree to that plan"],
)
def test_another_sentence_is_open(passes: Passes, speak: Speak, sentence: str) -> None:
    heard = passes.recognise(speak(sentence), lambda: None)
    assert heard.recognition == "open"
    assert heard.text not in SENTENCES
    assert 0 < heard.confidence < 1


def test_words_lie_in_order_within_the_audio(passes: Passes, speak: Speak) -> None:
    audio = speak("where is my order")
    words = passes.recognise(audio, lambda: None).words
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert 0.4 < times[0] < 0.8  # half a second of silence comes first
    assert times[-1] <= len(audio) / RATE


def test_a_sentence_is_trusted_as_it_sounds_like_the_witness_and_fits() -> None:
    said = Decoded((), ("G", "UH", "D", "N", "AY", "T"), loss=5.0)
    other = Decoded((), ("T", "AH", "N", "AY", "T"), loss=5.0)
    nothing = Decoded()
    trusts = [_trust(said, witness) for witness in (said, other, nothing)]
    assert trusts == sorted(trusts, reverse=True)
    assert trusts[0] > 0.9 > ACCEPTED > trusts[2] > 0
    assert _trust(replace(said, loss=9.0), said) < ACCEPTED


def test_an_answer_depends_on_its_own_audio_alone(passes: Passes, speak: Speak) -> None:
    def shout(audio: Samples) -> Samples:
        return np.clip(audio * 20, -1, 1)

    audio = speak("good morning")
    before = passes.recognise(audio, lambda: None)
    passes.recognise(shout(speak("where is my order")), lambda: None)
    passes.recognise(np.zeros(RATE, np.float32), lambda: None)
    assert passes.recognise(audio, lambda: None) == before


def test_what_a_chunk_raises_ends_the_work(passes: Passes, speak: Speak) -> None:
    chunks = 0

    def chunk() -> None:
        nonlocal chunks
        chunks += 1
        if chunks == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        passes.recognise(speak("block my card right now"), chunk)
    assert passes.recognise(speak("good morning"), lambda: None).text == "good morning"
