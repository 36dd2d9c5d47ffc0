"""A domain's head of the `nlu` model, from rows and the trunk's background.

One linear SVM over hashed TF-IDF and the trunk's vector, with the background as a class of its own;
seconds on one core, the trunk untouched.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from govor.domains import Pack
from govor.entities import spec_of
from govor.repository import Dataset
from govor.text import words
from services.nlu.backends.features import Encoded, Features
from services.nlu.backends.heads import Head
from services.nlu.backends.trunk import Read, Trunk
from trainer.datasets import Labelled, pack_rows, spelt

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
SINGLE_WORDS = 300  # of the background, as rows of their own: one word is often all that is heard


class Params(BaseModel):
    """What a head depends on beside rows and trunk."""

    model_config = ConfigDict(extra="forbid")

    seed: int = 1
    samples: int = Field(60, ge=1)
    """Sentences drawn an intent and language, over its templates."""
    trunk_weight: float = Field(0.7, gt=0)
    c: float = Field(0.5, gt=0)
    folds: int = Field(4, ge=2)
    false_alarms: float = Field(0.05, ge=0, lt=1)
    """Share of the pack's own utterances, held out, that the threshold gives up."""


@dataclass(frozen=True)
class Trained:
    """A head and what its cross-validation said: `scores` [rows, classes] are those of `rows` by
    classifiers that had not seen them."""

    head: Head
    metrics: dict[str, float]
    rows: list[Labelled]
    scores: Floats


class Fold(Protocol):
    """Told of each fold that was trained (from 1) and of its held-out loss, nats a row."""

    def __call__(self, fold: int, loss: float) -> None: ...


class Reader:
    """Texts as the classifier sees them, through the files of a model version."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.features = Features.load(folder / "features.json")
        self.trunk = Trunk(folder / "trunk.onnx", threads)

    def matrix(self, texts: Sequence[str], trunk_weight: float) -> csr_matrix:
        """[texts, buckets + pooled]: TF-IDF of unit length, the trunk's vector times its weight."""
        from scipy.sparse import csr_matrix, hstack

        encoded = [self.features.encode(text) for text in texts]
        pooled = self.pooled(encoded) * np.float32(trunk_weight)
        ends = np.cumsum([0, *(len(text.buckets) for text in encoded)])
        buckets = np.concatenate([text.buckets for text in encoded])
        weights = np.concatenate([text.weights for text in encoded])
        shape = (len(texts), len(self.features.idf))
        sparse = csr_matrix((weights, buckets, ends), shape=shape)
        return csr_matrix(hstack([sparse, csr_matrix(pooled)]))

    def read(self, texts: Sequence[str]) -> list[Read]:
        """What the trunk makes of each text, read in batches of like length."""
        return self._read([self.features.encode(text) for text in texts])

    def pooled(self, encoded: Sequence[Encoded]) -> Floats:
        """The trunk's vectors [texts, pooled]."""
        return np.stack([read.pooled for read in self._read(encoded)])

    def _read(self, encoded: Sequence[Encoded]) -> list[Read]:
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i].rows))
        reads: dict[int, Read] = {}
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            batch = self.trunk.read([encoded[i] for i in part])
            reads |= zip(part, batch, strict=True)
        return [reads[i] for i in range(len(encoded))]


def background(folder: Path, languages: Iterable[str]) -> list[str]:
    """The background rows of a version in these languages."""
    wanted = set(languages)
    with (folder / "background.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows if row["language"] in wanted]


def single_words(others: Sequence[str], rows: Sequence[Labelled]) -> list[str]:
    """Words of the background that the pack does not use."""
    own = {word.text for row in rows if row.intent is not None for word in words(row.text)}
    found = {word.text for text in others for word in words(text) if len(word.text) > 2}
    strange = sorted(found - own)
    return random.Random(0).sample(strange, min(SINGLE_WORDS, len(strange)))


def train(
    rows: Sequence[Labelled],
    others: Sequence[str],
    reader: Reader,
    languages: Sequence[str],
    params: Params,
    told: Fold = lambda fold, loss: None,
) -> Trained:
    """The head; its threshold and temperature come from rows that the fold's classifier has not
    seen. Background rows that the folds take for an intent of the pack are left out: many
    collections hold a greeting."""
    own = [row for row in rows if row.intent is not None]
    strange = [*(Labelled(text, None, text) for text in others)]
    strange += [row for row in rows if row.intent is None]
    labels = sorted({row.intent for row in own if row.intent is not None})
    number: dict[str | None, int] = {label: i for i, label in enumerate(labels)}
    every = [*own, *strange]
    truth = np.array([number.get(row.intent, len(labels)) for row in every])
    matrix = reader.matrix([row.text for row in every], params.trunk_weight)
    groups = [row.group for row in every]
    scores = _cross_validated(matrix, truth, len(labels) + 1, groups, params, told)
    mine = truth < len(labels)
    clean = mine | (scores[:, :-1].max(1) < scores[:, -1])
    weights, bias = fit(matrix[clean], truth[clean], len(labels) + 1, params)
    weights[:, len(reader.features.idf) :] *= params.trunk_weight
    head = Head(labels, list(languages), weights, bias)
    margin = head.margin(scores)
    head.threshold = float(np.quantile(margin[mine], params.false_alarms)) if own else 0.0
    head.temperature = _temperature(scores[clean], truth[clean])[0]
    metrics = _metrics(head, scores, truth, mine, clean)
    kept = [row for row, is_kept in zip(every, clean, strict=True) if is_kept]
    return Trained(head, metrics, kept, scores[clean])


def fit(matrix: Any, truth: NDArray[Any], classes: int, params: Params) -> tuple[Floats, Floats]:
    """One-against-rest linear SVM: weights [classes, features] and bias [classes]."""
    from sklearn.svm import LinearSVC

    model = LinearSVC(
        C=params.c, class_weight="balanced", random_state=params.seed, dual=True, tol=1e-2
    )
    model.fit(matrix, truth)
    weights = np.zeros((classes, matrix.shape[1]), np.float32)
    bias = np.full(classes, -1.0, np.float32)
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        weights[model.classes_] = np.stack([-model.coef_[0], model.coef_[0]])
        bias[model.classes_] = [-model.intercept_[0], model.intercept_[0]]
    else:
        weights[model.classes_] = model.coef_
        bias[model.classes_] = model.intercept_
    return weights, bias


def _cross_validated(
    matrix: Any,
    truth: NDArray[Any],
    classes: int,
    groups: Sequence[str],
    params: Params,
    told: Fold,
) -> Floats:
    """Scores [rows, classes] of each row by a classifier that has not seen its group."""
    rng = random.Random(params.seed)
    fold_of = {group: rng.randrange(params.folds) for group in sorted(set(groups))}
    folds = np.array([fold_of[group] for group in groups])
    scores = np.zeros((len(truth), classes), np.float32)
    for fold in range(params.folds):
        seen, held = folds != fold, folds == fold
        weights, bias = fit(matrix[seen], truth[seen], classes, params)
        scores[held] = matrix[held] @ weights.T + bias
        if held.any():
            told(fold + 1, _temperature(scores[held], truth[held])[1])
    return scores


def _temperature(scores: Floats, truth: NDArray[Any]) -> tuple[float, float]:
    """What makes the softmax of the scores likeliest, on a grid, and its loss there, nats a row."""

    def loss(temperature: float) -> float:
        scaled = scores / temperature
        top = scaled.max(1, keepdims=True)
        total = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        return float((total - scaled[np.arange(len(truth)), truth]).mean())

    best = float(min(np.geomspace(0.05, 2, 40), key=loss))
    return best, loss(best)


def _metrics(
    head: Head, scores: Floats, truth: NDArray[Any], own: NDArray[Any], clean: NDArray[Any]
) -> dict[str, float]:
    known = scores[own]
    best = known[:, :-1].argmax(1)
    others = clean & ~own
    confidence = head.confidences(scores[clean])
    return {
        "accuracy": float((best == truth[own]).mean()),
        "false_alarms": float((head.margin(known) < head.threshold).mean()),
        "out_of_scope_recall": float((head.margin(scores[others]) < head.threshold).mean()),
        "calibration_error": calibration_error(confidence, truth[clean]),
        "rows": float(own.sum()),
        "background_rows": float(others.sum()),
    }


def calibration_error(confidences: Floats, truth: NDArray[Any], bins: int = 10) -> float:
    """Expected calibration error: |confidence - accuracy| over bins of equal width."""
    best = confidences.max(1)
    right = confidences.argmax(1) == truth
    place = np.minimum((best * bins).astype(int), bins - 1)
    gaps = [
        abs(best[place == b].mean() - right[place == b].mean()) * (place == b).mean()
        for b in range(bins)
        if (place == b).any()
    ]
    return float(sum(gaps))


def run(folder: Path, pack: Pack, params: Params | None = None) -> dict[str, float]:
    """Writes the head of the pack's own rows beside the trunk in `folder`; its numbers."""
    params = params or Params()
    return learn(folder, pack, pack_rows(pack, params.samples, params.seed), params).metrics


def learn(
    folder: Path,
    pack: Pack,
    rows: Sequence[Labelled],
    params: Params,
    told: Fold = lambda fold, loss: None,
    asked: Collection[tuple[str, ...]] = (),
) -> Trained:
    """Writes `<folder>/heads/<pack>.*`, learnt from the rows, beside the trunk in `folder`. What is
    `asked` by a frozen set (`datasets.spelt`) is not learnt from the background either."""
    started = time.process_time()
    others = background(folder, pack.languages)
    others += single_words(others, rows)
    others = [text for text in others if spelt(text) not in asked]
    trained = train(rows, others, Reader(folder), pack.languages, params, told)
    trained.head.entities = spec_of(pack)
    trained.metrics["seconds"] = time.process_time() - started
    trained.head.about = {"pack": pack.digest, "params": params.model_dump()}
    trained.head.save(folder / "heads", pack.name)
    return trained


def dataset_of(pack: Pack) -> Dataset:
    """How a manifest names a pack as the source of a head."""
    name = f"pack {pack.name}"
    return Dataset(
        name=name, source=f"domains/{pack.name}", licence="Apache-2.0", digest=pack.digest
    )
