"""services/generator/backends/text.py"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from services.generator.backends.text import TextStream
from tests.generator.conftest import byte_tokenizer

TOKENIZER = byte_tokenizer("<name>", "<end>")
NAME = int(TOKENIZER.token_to_id("<name>"))


def tokens(text: str) -> list[int]:
    return list(TOKENIZER.encode(text, add_special_tokens=False).ids)


def fed(stream: TextStream, ids: list[int]) -> list[str]:
    pieces = []
    for token in ids:
        pieces.append(stream.feed(token))
        if stream.stopped:
            break
    return [*pieces, stream.flush()]


def test_bytes_of_an_unfinished_character_are_held() -> None:
    pieces = fed(TextStream(TOKENIZER, {}), tokens("ж👋"))
    assert pieces == ["", "ж", "", "", "", "👋", ""]


def test_a_placeholder_leaves_as_its_fill() -> None:
    stream = TextStream(TOKENIZER, {NAME: "Львам"})
    assert "".join(fed(stream, [*tokens("к "), NAME, *tokens(" да")])) == "к Львам да"


def test_control_tokens_are_no_text() -> None:
    end = int(TOKENIZER.token_to_id("<end>"))
    assert "".join(fed(TextStream(TOKENIZER, {}), [*tokens("a"), end, *tokens("b")])) == "ab"


def test_a_stop_string_is_found_across_tokens_and_none_of_it_leaks() -> None:
    stream = TextStream(TOKENIZER, {}, ["END"])
    assert fed(stream, tokens("an ENEND tail")) == [*"an ", "", "", "EN", "", "", ""]
    assert stream.stopped


def test_what_only_looked_like_a_stop_string_leaves_in_the_end() -> None:
    stream = TextStream(TOKENIZER, {}, ["END"])
    assert "".join(fed(stream, tokens("the EN"))) == "the EN"
    assert not stream.stopped


def test_a_stop_string_may_lie_in_a_fill() -> None:
    stream = TextStream(TOKENIZER, {NAME: "one. two"}, ["."])
    assert "".join(fed(stream, [NAME])) == "one"


@pytest.mark.parametrize("stop", [["\n"], ["б", "аб"], ["aa", "aab"]])
@given(text=st.text("aабb\n ", max_size=30))
@settings(max_examples=50)
def test_streamed_text_is_the_text_up_to_the_first_stop(stop: list[str], text: str) -> None:
    pieces = fed(TextStream(TOKENIZER, {}, stop), tokens(text))
    given_text = "".join(pieces)
    assert text.startswith(given_text)
    assert not any(s in given_text for s in stop)
    rest = text[len(given_text) :]
    assert not rest or any(rest.startswith(s) for s in stop)


@given(st.lists(st.integers(0, 255), max_size=60))
def test_any_bytes_can_be_decoded(ids: list[int]) -> None:
    tokenizer: Tokenizer = TOKENIZER
    text = "".join(fed(TextStream(tokenizer, {}), ids))
    assert tokenizer.decode(ids).startswith(text)
