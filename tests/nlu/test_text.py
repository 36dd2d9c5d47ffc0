"""govor/text.py"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govor.text import language_of, normalise, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wake me at 7:30, don't wait!", ["wake", "me", "at", "7:30", "don't", "wait"]),
        ("Ёлка — по-русски?", ["елка", "по-русски"]),
        ("♌ $50, 12.08.", ["♌", "$", "50", "12.08"]),
        ("hello,leo", ["hello", "leo"]),
        ("за\u0301мок и\u0306од", ["замок", "йод"]),
        ("... !?", []),
        ("", []),
    ],
)
def test_words_are_split_and_spelt_one_way(text: str, expected: list[str]) -> None:
    assert [word.text for word in words(text)] == expected


@given(st.text(max_size=60))
def test_words_stand_where_they_say(text: str) -> None:
    end = 0
    for word in words(text):
        assert word.start >= end
        assert word.end > word.start
        assert normalise(text[word.start : word.end]) == word.text
        end = word.end
    assert end <= len(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("hello", "en"), ("привет", "ru"), ("я leo", "en"), ("123", "en"), ("привет, Leo", "ru")],
)
def test_the_language_is_that_of_most_letters(text: str, expected: str) -> None:
    assert language_of(text, ["en", "ru"]) == expected


def test_without_letters_or_a_fitting_candidate_the_default_stands() -> None:
    assert language_of("12.08", ["en", "ru"], "ru") == "ru"
    assert language_of("привет", ["en", "de"], "de") == "de"
    assert language_of("hello", ["ru", "en", "de"], "de") == "de"
