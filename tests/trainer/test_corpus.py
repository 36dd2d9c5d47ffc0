"""Reading a phrase grammar, drawing from it, recognising its sentences; and our own corpus."""

from __future__ import annotations

import random
import time
from itertools import product
from pathlib import Path

import pytest

from trainer.corpus import CorpusError, Grammar, fill, read_grammar, read_plan, sentences

CORPUS = Path(__file__).resolve().parents[2] / "domains/horoscope/corpus"

PLAN = """
licence: Apache-2.0
source: "own writing"
fields: { language: [en], mood: [glad, sad], pet: [cat, dog] }
defaults: { language: en, mood: glad }
draws: {}
prompt: [language, mood]
sections: [mood]
structures: [hello say]
limits:
  min_chars: 10
  max_chars: 80
  names: { field: pet, forms: { en: { cat: [cat], dog: [dog] } } }
placeholders:
  pet: { field: pet, forms: { en: { cat: the cat, dog: the dog } } }
"""
LINES = """
# a comment
== hello
<pet> says (hello|good day) [to you].
== say glad
what a <fine> day; it is <fine>!
== say sad
what a pity.
== <fine>
fine
lovely
"""


def small(folder: Path, plan: str = PLAN, lines: str = LINES) -> Grammar:
    (folder / "corpus.yaml").write_text(plan, "utf-8")
    (folder / "en.txt").write_text(lines, "utf-8")
    return read_grammar(folder, "en")


@pytest.fixture(scope="module", params=["en", "ru"])
def grammar(request: pytest.FixtureRequest) -> Grammar:
    return read_grammar(CORPUS, request.param)


def test_a_text_follows_its_fields_and_begins_with_a_capital(tmp_path: Path) -> None:
    grammar = small(tmp_path)
    fills = grammar.plan.fills("en", {"pet": "dog"})
    glad = grammar.draw(random.Random(1), {"mood": "glad"})
    assert glad.text.startswith("<Pet> says ")
    assert fill(glad.text, fills).startswith("The dog says ")
    assert grammar.draw(random.Random(1), {"mood": "sad"}).text.endswith("What a pity.")


def test_a_line_of_a_rule_is_not_taken_twice_in_a_text(tmp_path: Path) -> None:
    grammar = small(tmp_path)
    for seed in range(20):
        text = grammar.draw(random.Random(seed), {"mood": "glad"}).text
        assert "fine" in text
        assert "lovely" in text


def test_spaces_of_optionals_that_are_left_out_close(tmp_path: Path) -> None:
    grammar = small(tmp_path)
    drawn = {grammar.draw(random.Random(s), {"mood": "sad"}).text for s in range(30)}
    assert drawn == {
        f"<Pet> says {greeting}{rest}. What a pity."
        for greeting, rest in product(("hello", "good day"), ("", " to you"))
    }


def test_the_recogniser_takes_what_the_grammar_makes_and_nothing_else(tmp_path: Path) -> None:
    grammar = small(tmp_path)
    assert grammar.pattern_of("The cat says hello.") == "en:4"
    assert grammar.pattern_of("<Pet> says good day to you.") == "en:4"
    assert grammar.pattern_of("What a fine day; it is lovely!") == "en:6"
    for other in ("The cow says hello.", "The cat says hello", "The cat says  helloto you.", ""):
        assert grammar.pattern_of(other) is None


def test_the_chance_of_a_derivation_is_counted(tmp_path: Path) -> None:
    """One of two greetings, with or without the optional."""
    text = small(tmp_path).draw(random.Random(0), {"mood": "sad"})
    assert text.nats == pytest.approx(1.386, abs=0.001)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("what a day.", "before the first section"),
        ("== say cheerful\nhello.", "cheerful is no mood"),
        ("== say\nhello <nobody>.", "nobody"),
        ("== say\nhello (there.", "line 2"),
        ("== farewell\nbye.", "farewell"),
    ],
)
def test_a_fault_is_named(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        small(tmp_path, lines=lines)


def test_a_field_that_is_missing_from_the_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="structures"):
        small(tmp_path, plan=PLAN.replace("structures: [hello say]", ""))


def test_our_corpus_is_large_enough(grammar: Grammar) -> None:
    counts = grammar.counts()
    assert counts["patterns"] >= 120
    assert counts["alternatives"] >= 250
    assert not grammar.unused_rules()


def test_every_combination_of_our_fields_gives_texts(grammar: Grammar) -> None:
    plan = grammar.plan
    rng = random.Random(3)
    for theme, day, tone in product(plan.fields["theme"], plan.fields["day"], plan.draws["tone"]):
        values = {"theme": theme, "day": day, "tone": tone, "sign": rng.choice(plan.fields["sign"])}
        text = grammar.draw(rng, values)
        assert len(set(text.patterns)) == len(text.patterns)
        filled = fill(text.text, plan.fills(grammar.language, values))
        assert plan.limits.min_chars <= len(filled) <= plan.limits.max_chars
        assert not set(filled) & set("<>()[]|;")
        assert "  " not in filled


def test_our_sentences_are_recognised_in_milliseconds(grammar: Grammar) -> None:
    rng = random.Random(4)
    plan = grammar.plan
    values = {"theme": "love", "day": "week", "tone": "calm", "sign": "leo"}
    texts = [grammar.draw(rng, values) for _ in range(40)]
    parts = [
        part
        for text in texts
        for part in sentences(fill(text.text, plan.fills(grammar.language, values)))
    ]
    began = time.process_time()
    found = [grammar.pattern_of(part) for part in parts]
    assert (time.process_time() - began) / len(parts) < 0.05
    assert found == [pattern for text in texts for pattern in text.patterns]


def test_our_texts_name_a_sign_only_by_its_placeholder(grammar: Grammar) -> None:
    """Otherwise a text could name another sign than the one asked for."""
    names = {word for words in grammar.plan.limits.names.forms[grammar.language].values()
             for word in words}  # fmt: skip
    source = (CORPUS / f"{grammar.language}.txt").read_text("utf-8")
    lines = [line for line in source.splitlines() if not line.startswith(("#", "=="))]
    words = " ".join(lines).lower().replace(".", " ").replace(",", " ").replace(":", " ").split()
    assert not names & set(words)


def test_days_are_named_by_placeholders_alone() -> None:
    """A text for tomorrow must not say today."""
    banned = {
        "en": {"today", "tomorrow", "tonight", "yesterday"},
        "ru": {"сегодня", "завтра", "вчера"},
    }
    for language, words in banned.items():
        source = (CORPUS / f"{language}.txt").read_text("utf-8").lower()
        text = "".join(char if char.isalpha() else " " for char in source)
        assert not words & set(text.split())


def test_every_sign_and_day_has_a_form_for_every_placeholder() -> None:
    plan = read_plan(CORPUS)
    for placeholder in plan.placeholders.values():
        for forms in placeholder.forms.values():
            assert set(forms) == set(plan.fields[placeholder.field])
