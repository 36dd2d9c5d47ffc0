"""services/tts/pieces.py"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.tts.pieces import LONGEST, split


def test_sentences_are_pieces() -> None:
    assert split("One. Two! Три?") == ["One.", "Two!", "Три?"]


def test_a_long_first_sentence_is_cut_at_its_first_clause() -> None:
    text = "The moon is in your corner today, and what you put off may be easier than it looks. Go."
    assert split(text)[0] == "The moon is in your corner today,"
    assert split(f"Go. {text}")[1].endswith("looks.")


@given(st.text(alphabet=st.sampled_from("ab,. !?…—я\n"), max_size=2000))
def test_nothing_is_lost_and_nothing_is_too_long(text: str) -> None:
    pieces = split(text)
    assert all(0 < len(piece) <= LONGEST for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())
