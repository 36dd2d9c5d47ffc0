"""A domain's head of the `nlu` model, from the pack's utterances and the trunk's background rows.

One linear SVM over hashed TF-IDF and the trunk's vector, with the background as a class of its own;
seconds on one core, the trunk untouched.

    python -m trainer.recipes.intents --domain parking

publishes a version in which only this domain's head is new, and deploys it.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from govor.config import Settings
from govor.database import record_deployment
from govor.domains import Pack, load_pack
from govor.entities import spec_of
from govor.errors import Conflict
from govor.repository import Dataset, Repository, Version, deploy
from govor.templates import Lists, Template, TemplateError, pack_lists
from govor.text import words
from services.nlu.backends.features import Encoded, Features
from services.nlu.backends.heads import Head
from services.nlu.backends.trunk import Read, Trunk

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float32]
MAX_VALUES = 200  # of one entity, as sentences of their own
SINGLE_WORDS = 300  # of the background, as rows of their own: one word is often all that is heard


class Params(BaseModel):
    """What a head depends on beside pack and trunk."""

    seed: int = 1
    samples: int = 60
    """Sentences drawn an intent and language, over its templates."""
    trunk_weight: float = 0.7
    c: float = 0.5
    folds: int = 4
    false_alarms: float = 0.05
    """Share of the pack's own utterances, held out, that the threshold gives up."""


@dataclass(frozen=True)
class Labelled:
    """A sentence of an intent; sentences of one `group` (a template) stay in one fold."""

    text: str
    intent: str
    group: str


@dataclass(frozen=True)
class Trained:
    """A head and what its cross-validation said."""

    head: Head
    metrics: dict[str, float]


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


def prepare(pack: Pack, params: Params) -> list[Labelled]:
    """Sentences of the pack, drawn evenly from the templates of each intent and language.

    Each near miss (`not_this`) is a background row.
    """
    rows = []
    for language in pack.languages:
        lists = pack_lists(pack, language)
        for intent in pack.intents:
            templates = pack.templates(intent, language)
            each = max(3, params.samples // max(1, len(templates)))
            for template in templates:
                try:
                    texts = _sentences(template, lists, each, params.seed)
                except TemplateError:  # an entity that this language has no forms of
                    continue
                group = f"{intent} {template.text}"
                rows += [Labelled(text, intent, group) for text in texts]
    return rows


def _sentences(template: Template, lists: Lists, each: int, seed: int) -> list[str]:
    """Up to `each` sentences, drawn by the seed; all values of a template that is but an entity,
    because one of them says nothing of the others ("leo", "libra")."""
    if template.text == "".join(f"{{{name}}}" for name in template.entities()):
        return [sample.text for sample in template.expand(lists, MAX_VALUES)]
    rng = random.Random(f"{seed} {template.text}")
    return sorted({template.sample(rng, lists).text for _ in range(2 * each)})[:each]


def near_misses(pack: Pack) -> list[str]:
    """What the pack says is none of its intents."""
    return [
        text for spec in pack.intents.values() for texts in spec.not_this.values() for text in texts
    ]


def background(folder: Path, languages: Iterable[str]) -> list[str]:
    """The background rows of a version in these languages."""
    wanted = set(languages)
    with (folder / "background.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [row["text"] for row in rows if row["language"] in wanted]


def single_words(others: Sequence[str], rows: Sequence[Labelled]) -> list[str]:
    """Words of the background that the pack does not use."""
    own = {word.text for row in rows for word in words(row.text)}
    found = {word.text for text in others for word in words(text) if len(word.text) > 2}
    strange = sorted(found - own)
    return random.Random(0).sample(strange, min(SINGLE_WORDS, len(strange)))


def train(
    rows: Sequence[Labelled],
    others: Sequence[str],
    reader: Reader,
    languages: Sequence[str],
    params: Params,
) -> Trained:
    """The head; its threshold and temperature come from rows that the fold's classifier has not
    seen. Background rows that the folds take for an intent of the pack are left out: many
    collections hold a greeting."""
    labels = sorted({row.intent for row in rows})
    number = {label: i for i, label in enumerate(labels)}
    texts = [*(row.text for row in rows), *others]
    truth = np.array([*(number[row.intent] for row in rows), *[len(labels)] * len(others)])
    matrix = reader.matrix(texts, params.trunk_weight)
    groups = [*(row.group for row in rows), *others]
    scores = _cross_validated(matrix, truth, groups, len(labels), params)
    own = truth < len(labels)
    clean = own | (scores[:, :-1].max(1) < scores[:, -1])
    weights, bias = fit(matrix[clean], truth[clean], len(labels) + 1, params)
    weights[:, len(reader.features.idf) :] *= params.trunk_weight
    head = Head(labels, list(languages), weights, bias)
    margin = head.margin(scores)
    head.threshold = float(np.quantile(margin[own], params.false_alarms)) if own.any() else 0.0
    head.temperature = _temperature(scores[clean], truth[clean])
    return Trained(head, _metrics(head, scores, truth, own, clean))


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
    matrix: Any, truth: NDArray[Any], groups: Sequence[str], background: int, params: Params
) -> Floats:
    """Scores [rows, classes] of each row by a classifier that has not seen its group."""
    rng = random.Random(params.seed)
    fold_of = {group: rng.randrange(params.folds) for group in sorted(set(groups))}
    folds = np.array([fold_of[group] for group in groups])
    scores = np.zeros((len(truth), background + 1), np.float32)
    for fold in range(params.folds):
        seen, held = folds != fold, folds == fold
        weights, bias = fit(matrix[seen], truth[seen], background + 1, params)
        scores[held] = matrix[held] @ weights.T + bias
    return scores


def _temperature(scores: Floats, truth: NDArray[Any]) -> float:
    """What makes the softmax of the scores likeliest, on a grid."""

    def loss(temperature: float) -> float:
        scaled = scores / temperature
        top = scaled.max(1, keepdims=True)
        total = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        return float((total - scaled[np.arange(len(truth)), truth]).mean())

    return float(min(np.geomspace(0.05, 2, 40), key=loss))


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
    """Writes `<folder>/heads/<pack>.*` beside the trunk that lies in `folder`; its numbers."""
    params = params or Params()
    started = time.process_time()
    rows = prepare(pack, params)
    others = background(folder, pack.languages)
    others += [*single_words(others, rows), *near_misses(pack)]
    reader = Reader(folder)
    trained = train(rows, others, reader, pack.languages, params)
    trained.head.entities = spec_of(pack)
    trained.metrics["seconds"] = time.process_time() - started
    trained.head.about = {"pack": pack.digest, "params": params.model_dump()}
    trained.head.save(folder / "heads", pack.name)
    return trained.metrics


def publish(
    repository: Repository,
    pack: Pack,
    params: Params | None = None,
    record: Callable[[dict[str, Any]], None] | None = None,
) -> Version:
    """Publishes and deploys the champion with a new head for `pack`; all else is copied bit for
    bit, and again if the champion changed meanwhile. `record` is told of the deployment."""
    while True:
        deployment = repository.deployment("nlu")
        assert deployment.champion is not None
        champion = repository.open("nlu", deployment.champion)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name in champion.names():
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(champion.path(name), folder / name)
            metrics = run(folder, pack, params)
            version = repository.publish("nlu", folder, **_manifest(champion, pack, metrics))
        try:
            deploy(repository, "nlu", {"champion": version.number}, deployment.generation, record)
        except Conflict:
            continue
        return version


def _manifest(champion: Version, pack: Pack, metrics: dict[str, float]) -> dict[str, Any]:
    """The champion's own manifest, with what the new head changes in it."""
    kept = champion.manifest.model_dump(
        include={"backend", "params", "licence", "description", "code_revision", "fields"}
    )
    mine = dataset_of(pack)
    sources = [d for d in champion.manifest.datasets if d.name != mine.name]
    numbers = {f"{pack.name}.{key}": value for key, value in metrics.items()}
    return kept | {
        "languages": sorted({*champion.manifest.languages, *pack.languages}),
        "recipe": "trainer/recipes/intents.py",
        "datasets": [*sources, mine],
        "metrics": champion.manifest.metrics | numbers,
        "parent": champion.number,
    }


def dataset_of(pack: Pack) -> Dataset:
    """How a manifest names a pack as the source of a head."""
    name = f"pack {pack.name}"
    return Dataset(
        name=name, source=f"domains/{pack.name}", licence="Apache-2.0", digest=pack.digest
    )


def main(arguments: Sequence[str] | None = None) -> int:
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", required=True, help="the pack that gets a head")
    parser.add_argument("--domains", type=Path, default=settings.domains_folder)
    options = parser.parse_args(arguments)
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    record = partial(record_deployment, settings.database)
    version = publish(repository, load_pack(options.domains / options.domain), record=record)
    numbers = {k: round(v, 4) for k, v in version.manifest.metrics.items()}
    print(f"nlu version {version.number} serves; {options.domain}:")
    for key, value in numbers.items():
        if key.startswith(f"{options.domain}."):
            print(f"  {key.removeprefix(options.domain + '.'):<22} {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
