"""How well a head answers utterances whose intent is known, as the person who says them sees it.

A frozen set (`domains/<pack>/evaluation/`) is what versions are compared on. A pack without one is
judged by the rows of its own templates, each by a classifier that has not seen its template.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from govor.domains import Evaluation
from govor.text import language_of
from services.nlu.backends.heads import Head
from trainer.datasets import CORRECTION, Labelled
from trainer.heads import Floats, Reader, Trained, calibration_error

HELD_OUT = "held_out_"
"""Begins the names of recorded figures that come from the pack's own rows: they are lower than
those of a frozen set, and no objective is theirs."""


@dataclass(frozen=True)
class Answers:
    """What a head says of each row, None for out of scope, and its confidences [rows, classes]."""

    rows: Sequence[Labelled]
    labels: Sequence[str]
    said: Sequence[str | None]
    confidences: Floats

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        pairs = zip(self.rows, self.said, strict=True)
        return np.array([row.intent == said for row, said in pairs], bool)

    @cached_property
    def in_scope(self) -> NDArray[np.bool_]:
        return np.array([row.intent is not None for row in self.rows], bool)

    def of(self, language: str | None) -> NDArray[np.bool_]:
        """The rows in a language; all for None."""
        return np.array([language in (None, row.language) for row in self.rows], bool)

    def metrics(self, language: str | None = None) -> dict[str, float]:
        """`accuracy` of the rows in scope, where what is taken for out of scope is wrong too;
        `macro_f1` over their intents; recall of what is out of scope; calibration error."""
        rows = self.of(language)
        inside, outside = rows & self.in_scope, rows & ~self.in_scope
        number: dict[str | None, int] = {label: i for i, label in enumerate(self.labels)}
        number[None] = len(self.labels)
        truth = np.array([number.get(row.intent, -1) for row in self.rows])
        return {
            "accuracy": float(self.right[inside].mean()) if inside.any() else 0.0,
            "macro_f1": self._macro_f1(rows),
            "out_of_scope_recall": float(self.right[outside].mean()) if outside.any() else 0.0,
            "calibration_error": calibration_error(self.confidences[rows], truth[rows]),
            "rows": float(rows.sum()),
        }

    def _macro_f1(self, chosen: NDArray[np.bool_]) -> float:
        pairs = [
            (row.intent, said)
            for row, said, is_chosen in zip(self.rows, self.said, chosen, strict=True)
            if is_chosen
        ]
        scores = []
        for intent in {truth for truth, _ in pairs} - {None}:
            both = sum(truth == said == intent for truth, said in pairs)
            either = sum(truth == intent for truth, _ in pairs)
            either += sum(said == intent for _, said in pairs)
            scores.append(2 * both / either)
        return float(np.mean(sorted(scores))) if scores else 0.0


def frozen(sets: Mapping[str, Evaluation]) -> list[Labelled]:
    """The rows of a pack's frozen sets."""
    rows = []
    for language, one in sets.items():
        for intent, texts in one.intents.items():
            rows += [Labelled(text, intent, "", language) for text in texts]
        rows += [Labelled(text, None, "", language) for text in one.out_of_scope]
    return rows


def answer(head: Head, reader: Reader, rows: Sequence[Labelled]) -> Answers:
    """What a head says, by the arithmetic that serves it."""
    texts = [row.text for row in rows]
    encoded = [reader.features.encode(text) for text in texts]
    pooled = reader.pooled(encoded)
    scores = [head.scores(text, vector) for text, vector in zip(encoded, pooled, strict=True)]
    return _answers(head, np.stack(scores), rows)


def held_out(trained: Trained, languages: Sequence[str]) -> Answers:
    """What the classifiers of the cross-validation said of the rows that they had not seen; not of
    what people corrected: wrong corrections that agree with one another would prove themselves."""
    known = [not row.group.startswith(CORRECTION) for row in trained.rows]
    rows = [
        row if row.language else replace(row, language=language_of(row.text, languages))
        for row in compress(trained.rows, known)
    ]
    return _answers(trained.head, trained.scores[known], rows)


def _answers(head: Head, scores: Floats, rows: Sequence[Labelled]) -> Answers:
    best = scores[:, : len(head.labels)].argmax(1)
    inside = head.margin(scores) >= head.threshold
    said = [
        head.labels[index] if is_inside else None
        for index, is_inside in zip(best, inside, strict=True)
    ]
    return Answers(rows, head.labels, said, head.confidences(scores))


def records(
    answers: Answers, languages: Sequence[str], facts: Mapping[str, Any], prefix: str = ""
) -> list[dict[str, Any]]:
    """The rows of the table `evaluation`: one a language, and one for all (NULL). `facts` are the
    columns that they share; the same facts give the same ids, so that a repeat adds nothing.
    `prefix` begins the names of the figures."""
    name = " ".join(str(facts[key]) for key in ("job_id", "model", "version", "dataset_digest"))
    return [
        {
            **facts,
            "id": uuid.uuid5(uuid.NAMESPACE_OID, f"{name} {language}").hex,
            "at": datetime.now(UTC),
            "language": language,
            "metrics": {
                f"{prefix}{key}": value for key, value in answers.metrics(language).items()
            },
        }
        for language in (*languages, None)
    ]
