"""services/generator/backends/filter.py"""

from __future__ import annotations

import pytest

from services.generator.backends.config import Filter, Names
from services.generator.backends.filter import fault

LIMITS = Filter(
    min_chars=20,
    max_chars=80,
    repeat=3,
    names=Names(
        field="colour",
        forms={"en": {"red": ["red", "reds"], "blue": ["blue", "navy"], "sea": ["navy"]}},
    ),
)
ASKED = {"colour": "red", "language": "en"}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("The red house stands on a hill.", None),
        ("Too short.", "length"),
        ("Too long " * 10 + ".", "length"),
        ("The red house stands on a", "ending"),
        ("The red house and the red house again.", "repetition"),
        ("The Blue house stands on a hill.", "names another colour"),
        ("The reds and the bluest house on a hill.", None),
    ],
)
def test_fault(text: str, wrong: str | None) -> None:
    assert fault(text, LIMITS, ASKED) == wrong


def test_a_form_shared_with_the_own_value_is_the_own_value() -> None:
    text = "The navy house stands on a hill."
    assert fault(text, LIMITS, {"colour": "sea", "language": "en"}) is None
    assert fault(text, LIMITS, {"colour": "red", "language": "en"}) is not None


def test_without_names_any_value_may_be_named() -> None:
    assert fault("The blue house.", Filter(), {}) is None
