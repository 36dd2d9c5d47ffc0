"""The conditions of `if:` steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govor.domains.conditions import parse_condition

SLOTS = {"found": True, "sign": "leo", "money": {"amount": 12.5}, "day": "today", "empty": None}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("found", True),
        ("not found", False),
        ("not missing", True),
        ("sign == 'leo'", True),
        ('sign != "leo" or found', True),
        ("not (found and sign == 'leo')", False),
        ("money.amount > 12 and money.amount <= 12.5", True),
        ("money.currency == null", True),
        ("money.amount.more", False),
        ("sign in ['leo', 'aries']", True),
        ("sign in []", False),
        ("not sign in ['aries']", True),
        ("sign > 3", False),
        ("empty >= 0", False),
        ("found == true", True),
        ("day == 'or'", False),
        ("-1 < 0", True),
    ],
)
def test_holds(text: str, holds: bool) -> None:
    assert parse_condition(text).holds(SLOTS) is holds


@pytest.mark.parametrize(
    "text",
    ["", "and", "a ==", "a b", "(a", "a in b", "a in [b]", "a = b", "a; b", "__import__('os')"],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(ValueError, match="condition"):
        parse_condition(text)


def test_slots() -> None:
    assert parse_condition("not a.b or c in ['x'] and (d > 1)").slots() == {"a", "c", "d"}


@given(st.text(alphabet="ab .'\"()[]<>=!,0-nortidx", max_size=40))
def test_nothing_but_value_errors(text: str) -> None:
    try:
        condition = parse_condition(text)
    except ValueError:
        return
    assert condition.holds({}) in (True, False)
