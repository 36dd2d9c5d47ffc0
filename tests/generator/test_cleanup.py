"""services/generator/backends/cleanup.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generator.backends.cleanup import clean, ends_as_sentence, finished


@pytest.mark.parametrize(
    ("drawn", "cleaned"),
    [
        ("a\x00b\x1b[0m\u200b\ufeff\u202e c", "ab[0m c"),
        ("  two  spaces\tand\r\na tab \u00a0", "two spaces and\na tab"),
        ("line \n\n\n\n line", "line\n\nline"),
        ("before , a comma .", "before, a comma."),
        ("doubled,, marks!! and;; so on??", "doubled, marks! and; so on?"),
        ("two.. and four.... but three...", "two. and four... but three..."),
        ("a comma,. at the end", "a comma. at the end"),
        ("really?!", "really?!"),
        ("it costs .5 or 3.5", "it costs .5 or 3.5"),
        ("День , как «день» .", "День, как «день»."),
        ("👩\u200d👧 stays", "👩\u200d👧 stays"),
    ],
)
def test_clean(drawn: str, cleaned: str) -> None:
    assert clean(drawn) == cleaned


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two! And thr", "One. Two!"),
        ("Она сказала: «Да!» И пот", "Она сказала: «Да!»"),
        ("Pi is 3.14159 or", "Pi is 3.14159 or"),
        ("All of it.", "All of it."),
        ("", ""),
    ],
)
def test_an_unfinished_last_sentence_goes_if_a_whole_one_is_left(text: str, whole: str) -> None:
    assert finished(text) == whole


def test_only_a_text_that_was_cut_short_loses_its_last_sentence() -> None:
    assert clean("One. Two") == "One. Two"
    assert clean("One. Two", cut_short=True) == "One."


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    assert clean(clean(text)) == clean(text)


def test_ends_as_sentence_looks_behind_quotes() -> None:
    assert ends_as_sentence("«Да!»")
    assert ends_as_sentence("Yes.”)")
    assert not ends_as_sentence("Yes,")
    assert not ends_as_sentence("")
