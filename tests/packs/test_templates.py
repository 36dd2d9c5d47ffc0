"""Templates: samples with spans, all sentences, JSGF."""

from __future__ import annotations

import random

import pytest

from govor.templates import Span, TemplateError, parse, to_jsgf

LISTS = {
    "sign": [("Leo", "leo"), ("the lion", "leo"), ("♌", "leo"), ("Лев", "leo")],
    "day": [("today", "today"), ("12.08", "2026-08-12")],
}


def test_all_sentences_in_order() -> None:
    template = parse("[please] (read|tell) me[, {day}]")
    texts = [sample.text for sample in template.expand(LISTS)]
    assert texts[:3] == ["please read me, today", "please read me, 12.08", "please read me"]
    assert len(texts) == template.count(LISTS) == 12


def test_spans_slice_back() -> None:
    for sample in parse("[ what  of]  {sign}'s stars ,  {day} ?").expand(LISTS):
        first, second = sample.spans
        surfaces = [sample.text[span.start : span.end] for span in (first, second)]
        assert surfaces[0] in dict(LISTS["sign"])
        assert surfaces[1] in dict(LISTS["day"])
        assert "  " not in sample.text
        assert sample.text.endswith("?")
    assert first == Span("sign", "leo", first.start, first.end)


def test_what_is_too_much_is_drawn_with_a_fixed_seed() -> None:
    template = parse("{sign} " * 6)
    drawn = [sample.text for sample in template.expand(LISTS, limit=50)]
    assert len(set(drawn)) == 50
    assert drawn == [sample.text for sample in parse("{sign} " * 6).expand(LISTS, limit=50)]
    assert template.sample(random.Random(1), LISTS) == template.sample(random.Random(1), LISTS)


def test_rules_stand_for_templates() -> None:
    rules = {"love": "(love|<deep> romance)", "deep": "[deep]"}
    texts = {sample.text for sample in parse("<love> for {sign}", rules).expand(LISTS)}
    assert "deep romance for Leo" in texts
    assert "romance for Лев" in texts


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("read (me", "end of group"),
        ("read {me", "end of list"),
        ("<none>", "no rule <none>"),
        ("<a>", "holds itself"),
        ("a;b", "semicolon"),
        ("{Sign}", "not the name"),
        ("[] ()", "empty"),
        (" ", "empty"),
    ],
)
def test_what_cannot_be_read(text: str, complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint):
        parse(text, {"a": "<b>", "b": "<a>"})


def test_jsgf() -> None:
    templates = [
        parse("[Please] read {sign}, [for] {day}"),
        parse("star[s] (о|в) {day}"),
        parse("call 112"),
    ]
    assert to_jsgf("stars", templates, LISTS) == (
        "#JSGF V1.0 UTF-8;\n"
        "grammar stars;\n"
        "public <utterance> = [please] read <sign> [for] <day> | (stars | star) (о | в) <day>"
        ";\n"
        "<sign> = leo | the lion | лев;\n"
        "<day> = today;\n"
    )
