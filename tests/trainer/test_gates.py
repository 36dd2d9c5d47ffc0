"""trainer/gates.py"""

from __future__ import annotations

import numpy as np
import pytest

from trainer.datasets import Labelled
from trainer.evaluation import Answers
from trainer.gates import Check, decide, sign_test

LABELS = ["pay", "park"]
SMALL = 200_000


def answers(wrong: dict[str, set[int]], count: int = 100, sure: float = 1.0) -> Answers:
    """`count` rows in scope a language, and as many out of scope; `wrong` names those that are
    answered wrong, by `en`, `ru` or `out`."""
    rows: list[Labelled] = []
    said: list[str | None] = []
    for language in ("en", "ru"):
        for number in range(count):
            rows.append(Labelled(str(number), "pay", "", language))
            said.append("park" if number in wrong.get(language, ()) else "pay")
    for number in range(count):
        rows.append(Labelled(str(number), None, "", "en"))
        said.append("pay" if number in wrong.get("out", ()) else None)
    confidences = np.full((len(rows), 3), (1 - sure) / 2, np.float32)
    for row, answer in zip(confidences, said, strict=True):
        row[2 if answer is None else LABELS.index(answer)] = sure
    return Answers(rows, LABELS, said, confidences)


def first(count: int) -> set[int]:
    return set(range(count))


def failed(checks: list[Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_an_equal_candidate_passes() -> None:
    champion = answers({"en": first(10), "ru": first(20), "out": first(5)})
    checks = decide(champion, champion, ["en", "ru"], SMALL)
    assert failed(checks) == []
    assert [check.name for check in checks] == [
        "accuracy.en",
        "accuracy.en.floor",
        "accuracy.ru",
        "accuracy.ru.floor",
        "out_of_scope_recall",
        "out_of_scope_recall.floor",
        "calibration_error",
        "size_bytes",
    ]
    assert all(check.reason for check in checks)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"en": first(12)}, []),  # two rows of a hundred are chance
        ({"en": first(13)}, ["accuracy.en"]),
        ({"en": first(0), "ru": first(13)}, ["accuracy.ru"]),  # one language pays for no other
        ({"en": set(range(50, 62))}, []),  # other rows, as many
        ({"out": first(15)}, []),
        ({"out": first(16)}, ["out_of_scope_recall"]),
    ],
)
def test_what_may_be_lost_to_the_champion(wrong: dict[str, set[int]], expected: list[str]) -> None:
    champion = answers({"en": first(10), "ru": first(10), "out": first(10)})
    candidate = answers({"en": first(10), "ru": first(10), "out": first(10)} | wrong)
    assert failed(decide(candidate, champion, ["en", "ru"], SMALL)) == expected


def test_of_a_small_set_two_rows_may_be_lost() -> None:
    champion = answers({}, count=10)
    assert failed(decide(answers({"en": first(2)}, 10), champion, ["en"], SMALL)) == []
    assert failed(decide(answers({"en": first(3)}, 10), champion, ["en"], SMALL)) == ["accuracy.en"]


def test_without_a_champion_the_floors_count() -> None:
    poor = answers({"en": first(41), "out": first(41)}, sure=0.8)
    checks = decide(poor, None, ["en", "ru"], SMALL)
    assert failed(checks) == ["accuracy.en.floor", "out_of_scope_recall.floor"]


def test_what_is_better_than_a_poor_champion_serves() -> None:
    champion, better = answers({"en": first(60)}), answers({"en": first(50)})
    assert failed(decide(better, champion, ["en", "ru"], SMALL)) == []


def test_confidences_that_mislead_are_refused() -> None:
    wrong = {"en": first(10), "ru": first(10), "out": first(10)}
    honest, boasting = answers(wrong, sure=0.9), answers(wrong, sure=1.0)
    assert failed(decide(boasting, honest, ["en", "ru"], SMALL)) == ["calibration_error"]


def test_a_head_that_grew_out_of_bounds_is_refused() -> None:
    same = answers({})
    assert failed(decide(same, same, ["en", "ru"], 5_000_000)) == ["size_bytes"]


def test_the_sign_test() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(5, 0) == 1 / 32
    assert sign_test(2, 2) == 11 / 16
