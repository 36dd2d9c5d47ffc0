"""trainer/evaluation.py, and the frozen sets of the packs in `domains/`."""

from __future__ import annotations

import re
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hassil.expression import Alternative, Expression, Group, ListReference, TextChunk

from govor.domains import Evaluation, Pack, PackError, load_evaluation, load_pack
from govor.repository import Version
from govor.templates import Lists, pack_lists
from govor.text import normalise
from services.nlu.backends.heads import Head
from services.nlu.backends.ngram import Ngram
from tests.packs.pizza import write
from trainer import heads
from trainer.datasets import Labelled, pack_rows, spelt
from trainer.evaluation import Answers, answer, frozen

HOME = Path(__file__).resolve().parents[2]
PACKS = sorted(path.parent.name for path in (HOME / "domains").glob("*/domain.yaml"))
ROWS = 8  # an intent and language


@cache
def loaded(name: str) -> tuple[Pack, dict[str, Evaluation]]:
    folder = HOME / "domains" / name
    pack = load_pack(folder)
    return pack, load_evaluation(folder, pack)


@pytest.mark.parametrize("name", PACKS)
def test_a_frozen_set_asks_for_every_intent_in_every_language(name: str) -> None:
    pack, sets = loaded(name)
    assert set(sets) == set(pack.languages)
    for language, one in sets.items():
        assert set(one.intents) == set(pack.intents)
        for intent, texts in one.intents.items():
            assert len({spelt(text) for text in texts}) >= ROWS, f"{language} {intent}"
        asked = [spelt(text) for texts in one.intents.values() for text in texts]
        asked += [spelt(text) for text in one.out_of_scope]
        assert len(asked) == len(set(asked)), "an utterance is asked for twice"


def letters(text: str) -> str:
    return "".join(c for c in normalise(text) if c.isalnum())


def pattern(node: Expression, lists: Lists) -> str:
    """A regular expression of what a template says, letters and digits alone."""
    if isinstance(node, TextChunk):
        return re.escape(letters(node.original_text))
    if isinstance(node, ListReference):
        forms = {re.escape(letters(form)) for form, _ in lists.get(node.list_name, ())}
        return f"(?:{'|'.join(sorted(forms))})" if forms else "(?!)"
    assert isinstance(node, Group)
    parts = [pattern(item, lists) for item in node.items]
    return f"(?:{'|'.join(parts)})" if isinstance(node, Alternative) else "".join(parts)


@pytest.mark.parametrize("name", PACKS)
def test_no_template_can_say_what_a_frozen_set_asks(name: str) -> None:
    """Not with any word of the pack's entities, nor with those that are found in the utterance
    itself, however it is spaced and punctuated."""
    pack, sets = loaded(name)
    for language, one in sets.items():
        texts = [text for group in (*one.intents.values(), one.out_of_scope) for text in group]
        lists = pack_lists(pack, language)
        for entity in pack.entities:
            for text in texts:
                found = pack.read(entity, text, language, date(2026, 1, 15))
                lists[entity] += [(text[each.start : each.end], None) for each in found]
        templates = [(template.text, template.tree) for _, template in pack.utterances(language)]
        said = [(text, re.compile(pattern(tree, lists))) for text, tree in templates]
        for text in texts:
            by = [template for template, regex in said if regex.fullmatch(letters(text))]
            assert not by, f"{text!r} can be said by {by}"


@pytest.mark.parametrize("name", PACKS)
def test_nothing_that_is_asked_is_learnt(name: str, bundled: Version) -> None:
    pack, sets = loaded(name)
    others = heads.background(bundled.folder, pack.languages)
    rows = pack_rows(pack, 60, 1)
    learnt = {spelt(row.text) for row in rows}
    learnt |= {spelt(text) for text in (*others, *heads.single_words(others, rows))}
    asked = {spelt(row.text) for row in frozen(sets)}
    assert not asked & learnt


async def test_what_is_judged_is_what_is_served(bundled: Version) -> None:
    pack, sets = loaded("horoscope")
    rows = frozen(sets)
    head = Head.load(bundled.folder / "heads", pack.name)
    judged = answer(head, heads.Reader(bundled.folder), rows)
    served = Ngram(bundled)
    try:
        parsed = await served.understand([row.text for row in rows], pack.name)
    finally:
        served.close()
    says = [None if one.out_of_scope else one.ranking[0][0] for one in parsed]
    assert says == judged.said
    sure = [one.ranking[0][1] for one in parsed]
    np.testing.assert_allclose(judged.confidences[:, :-1].max(1), sure, atol=1e-5)


def test_the_bundled_heads_answer_most_of_it(bundled: Version) -> None:
    """No bar to be tuned to: it notices a set or a head that no longer fits the other."""
    for name in PACKS:
        _, sets = loaded(name)
        head = Head.load(bundled.folder / "heads", name)
        judged = answer(head, heads.Reader(bundled.folder), frozen(sets))
        assert judged.metrics()["accuracy"] > 0.8
        assert judged.metrics()["out_of_scope_recall"] > 0.8


def test_metrics_are_what_a_person_notices() -> None:
    rows = [
        Labelled("a", "pay", "", "en"),
        Labelled("b", "pay", "", "en"),
        Labelled("c", "park", "", "ru"),
        Labelled("d", None, "", "en"),
        Labelled("e", None, "", "ru"),
    ]
    said = ["pay", None, "pay", None, "park"]
    confidences = np.full((5, 3), 1 / 3, np.float32)
    answers = Answers(rows, ["park", "pay"], said, confidences)
    assert answers.metrics("en") | {"calibration_error": 0} == {
        "accuracy": 0.5,  # what is taken for out of scope is wrong too
        "macro_f1": pytest.approx(2 / 3),
        "out_of_scope_recall": 1.0,
        "calibration_error": 0,
        "rows": 3.0,
    }
    assert answers.metrics()["accuracy"] == pytest.approx(1 / 3)
    assert answers.metrics()["macro_f1"] == pytest.approx((0.5 + 0) / 2)
    assert answers.metrics()["out_of_scope_recall"] == 0.5
    assert answers.metrics()["calibration_error"] == pytest.approx(abs(1 / 3 - 1 / 5))


def test_a_frozen_set_that_does_not_fit_its_pack_names_file_and_field(tmp_path: Path) -> None:
    folder = write(tmp_path)
    pack = load_pack(folder)
    assert load_evaluation(folder, pack) == {}
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "en.yaml").write_text(
        "intents:\n  order: [feed me]\n  fly: [up]\nout_of_scope: [how tall]\n"
    )
    with pytest.raises(PackError) as wrong:
        load_evaluation(folder, pack)
    assert "pizza/evaluation/en.yaml:3: intents.fly: there is no intent 'fly'" in str(wrong.value)
    assert "intents: nothing for the intent 'hours'" in str(wrong.value)
    assert load_pack(folder).digest == pack.digest, "what judges a bot changes nothing of it"
