"""trainer/automata.py"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.automata import compile_jsgf, minimised, write_fsg

HEAD = "#JSGF V1.0 UTF-8;\ngrammar test;\n"
texts = st.lists(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=8
)


@given(texts)
def test_a_list_of_sentences_is_accepted_and_nothing_else(said: list[tuple[str, ...]]) -> None:
    grammar = f"{HEAD}public <all> = {' | '.join(map(' '.join, said))};\n"
    automaton = compile_jsgf(grammar)
    for length in range(5):
        for words in itertools.product("abc", repeat=length):
            assert automaton.accepts(list(words)) == (words in said)
    assert minimised(automaton) == automaton


def test_groups_options_and_rules() -> None:
    automaton = compile_jsgf(
        HEAD + "public <all> = [please] (read | tell) me <what>;\n<what> = the (news | weather);\n"
    )
    for sentence in ("please read me the news", "tell me the weather"):
        assert automaton.accepts(sentence.split())
    for sentence in ("please please read me the news", "read me", "", "me the news"):
        assert not automaton.accepts(sentence.split())
    assert len(automaton.arcs) == 6


def test_beginnings_and_ends_are_shared() -> None:
    sentences = [f"{a} the {b}" for a in ("open", "close") for b in ("door", "window", "gate")]
    automaton = compile_jsgf(f"{HEAD}public <all> = {' | '.join(sentences)};\n")
    assert (len(automaton.arcs), sum(map(len, automaton.arcs))) == (4, 6)


def test_the_file_is_what_the_recogniser_reads(tmp_path: Path) -> None:
    from pocketsphinx import Decoder

    automaton = compile_jsgf(HEAD + "public <all> = hello [world] | good morning;\n")
    write_fsg(automaton, "test", tmp_path / "a.fsg")
    assert Decoder(lm=None, fsg=str(tmp_path / "a.fsg"), loglevel="FATAL").get_fsg() is not None


def test_what_is_no_grammar_is_refused() -> None:
    with pytest.raises(ValueError, match="not a JSGF grammar"):
        compile_jsgf("public <all> = (unbalanced;")
