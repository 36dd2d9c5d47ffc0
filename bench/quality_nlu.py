"""Accuracy of the `nlu` model: MASSIVE, packs from few utterances, the size of the model.

Reads the collections (`GOVOR_DATA`) and what the development rows of MASSIVE say of the bundled
trunk; heads for this are trained here and kept outside `models/`. Packs are judged by a trunk that
never saw their intents: it is trained once (7 CPU-minutes) and kept under `var/quality`.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from govor.config import Settings
from govor.repository import MANIFEST, Repository, Version, write_manifest
from services.nlu.backends import Parsed
from services.nlu.backends.ngram import Ngram
from trainer import batches, collection_head, heads, network, utterances
from trainer.batches import mistype
from trainer.datasets import Labelled
from trainer.recipes import nlu_trunk
from trainer.utterances import Row, plain_row, read_rows, tagged_row

LANGUAGES = ("en", "ru")
BARS = {
    "massive intent": {"en": 0.86, "ru": 0.85},
    "massive slots": {"en": 0.755, "ru": 0.735},
    "massive intent, typing mistakes": {"en": 0.81, "ru": 0.81},
    "pack of few: accuracy": {"en": 0.93, "ru": 0.77},
    "pack of few: out of scope": {"en": 0.80, "ru": 0.58},
}
SIBLINGS = "pack of few: its siblings"
SIZE_BAR_BYTES, HEAD_SECONDS_BAR = 8_000_000, 5.0
UTTERANCES = 15  # an intent, in packs from few

# Fifteen intents of MASSIVE that are easily taken for one another: three of each of five scenarios.
# (A TF-IDF and linear SVM of scikit-learn reaches 0.763 on the training rows of this choice, 0.760
# on that of the findings, whose names are not known.)
CONFUSABLE = [
    f"{scenario}_{name}"
    for scenario, names in {
        "alarm": ("query", "remove", "set"),
        "email": ("query", "querycontact", "sendemail"),
        "lists": ("createoradd", "query", "remove"),
        "play": ("music", "podcasts", "radio"),
        "transport": ("query", "ticket", "traffic"),
    }.items()
    for name in names
]


def main(arguments: Sequence[str]) -> int:
    settings = Settings()
    data = os.environ.get("GOVOR_DATA") or settings.home.parent / "shared" / "data"
    parser = argparse.ArgumentParser(prog="python -m bench quality nlu", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(data))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, help="development rows a language, all by default")
    parser.add_argument("--only", choices=["massive", "packs"])
    parser.add_argument("--random-weights", action="store_true", help="what noise would score")
    options = parser.parse_args(arguments)
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    version = repository.open("nlu", repository.deployment("nlu").champion or 1)
    size = sum(path.stat().st_size for path in version.folder.rglob("*") if path.is_file())
    print(f"nlu version {version.number}, {size / 1e6:.2f} MB (bar {SIZE_BAR_BYTES / 1e6:.0f})")
    passed = size <= SIZE_BAR_BYTES
    if options.only != "packs":
        values = massive(version, options.data, options.seeds, options.rows, options.random_weights)
        passed &= report(values)
    if options.only != "massive" and not options.random_weights:
        folder = held_out_trunk(options.data, settings.var_folder / "quality")
        values, seconds = packs(folder, options.data, options.seeds)
        passed &= report(values)
        print(f"head trained in {seconds:.1f} CPU-s (bar {HEAD_SECONDS_BAR:.0f})")
        passed &= seconds <= HEAD_SECONDS_BAR
    return 0 if passed else 1


def report(values: dict[str, dict[str, list[float]]]) -> bool:
    """Prints mean and range of each measure beside its bar; whether all bars are met."""
    passed = True
    for name, by_language in values.items():
        for language, seeds in by_language.items():
            bar = BARS.get(name, {}).get(language)
            mean = float(np.mean(seeds))
            verdict = "" if bar is None else "ok" if mean >= bar else "MISSED"
            shown = "" if bar is None else f"bar {bar:.3f}"
            print(f"{name:<34}{language}  {mean:.4f}  {shown:<10} {verdict:<7}", end="")
            print(f"({min(seeds):.4f}-{max(seeds):.4f})")
            passed &= bar is None or mean >= bar
    return passed


def massive(
    version: Version,
    data: Path,
    seeds: int,
    rows: int | None = None,
    noise: bool = False,
    examples: int | None = None,
) -> dict[str, dict[str, list[float]]]:
    """Intent accuracy and slot F1 on MASSIVE's development rows, through the serving code.

    `rows` and `examples` bound the rows to judge by (a language) and to learn from; with `noise`
    trunk and head are shuffled once the head is trained.
    """
    train = [row for row in read_rows(data) if row.task == "massive" and row.words]
    train = random.Random(0).sample(train, examples) if examples else train
    values: dict[str, dict[str, list[float]]] = {name: {} for name in list(BARS)[:3]}
    for seed in range(1, seeds + 1):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "1"
            shutil.copytree(version.folder, folder)
            reader = heads.Reader(folder)
            head = collection_head.train(train, reader, LANGUAGES, seed)
            head.save(folder / "heads", "massive")
            if noise:
                randomise(folder, "massive", seed)
            model = Ngram(_version(folder), max_batch=32)
            for language in LANGUAGES:
                scores = _judge(model, _dev(data, language)[:rows], language, seed)
                for name, score in zip(values, scores, strict=True):
                    values[name].setdefault(language, []).append(score)
            model.close()
    return values


def _judge(
    model: Ngram, dev: Sequence[dict[str, Any]], language: str, seed: int
) -> tuple[float, float, float]:
    from seqeval.metrics import f1_score

    rng = random.Random(seed)
    texts = [raw["text"] for raw in dev]
    clean = _understand(model, texts, "massive", language)
    spoilt = _understand(model, [mistyped(t, rng) for t in texts], "massive", language)
    gold = [raw["tags"] for raw in dev]
    ours = [_tags(raw["tokens"], raw["text"], p) for raw, p in zip(dev, clean, strict=True)]
    return _accuracy(clean, dev), float(f1_score(gold, ours)), _accuracy(spoilt, dev)


def _understand(model: Ngram, texts: Sequence[str], domain: str, language: str) -> list[Parsed]:
    async def ask() -> list[Parsed]:
        found: list[Parsed] = []
        for start in range(0, len(texts), 256):
            found += await model.understand(texts[start : start + 256], domain, language)
        return found

    return asyncio.run(ask())


def _accuracy(found: Sequence[Parsed], dev: Sequence[dict[str, Any]]) -> float:
    best = [item.ranking[0][0] if item.ranking else "" for item in found]
    return float(np.mean([b == raw["intent"] for b, raw in zip(best, dev, strict=True)]))


def _tags(tokens: Sequence[str], text: str, parsed: Parsed) -> list[str]:
    """The slots found, as BIO tags of the collection's own tokens."""
    tags, at = [], 0
    for token in tokens:
        start = text.index(token, at)
        at = start + len(token)
        hit = next((e for e in parsed.entities if e.start < at and start < e.end), None)
        first = hit is not None and hit.start >= start
        tags.append("O" if hit is None else f"{'B' if first else 'I'}-{hit.entity}")
    return tags


def mistyped(text: str, rng: random.Random) -> str:
    """The text with one typing mistake in every 20 characters."""
    spelt = text.split()
    for _ in range(round(len(text) / 20)):
        place = rng.choices(range(len(spelt)), [len(word) for word in spelt])[0]
        spelt[place] = mistype(spelt[place], rng) or spelt[place]
    return " ".join(spelt)


def randomise(folder: Path, domain: str, seed: int) -> None:
    """Puts noise of the same spread in the place of all weights of trunk and head."""
    import onnx
    from onnx import numpy_helper
    from safetensors.numpy import load_file, save_file

    rng = np.random.default_rng(seed)
    model = onnx.load(folder / "trunk.onnx")
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim == 2:
            shuffled = rng.permuted(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    onnx.save(model, folder / "trunk.onnx")
    file = folder / "heads" / f"{domain}.safetensors"
    tensors = load_file(file)
    for name in ("weights", "tag_weights"):
        tensors[name] = rng.permuted(tensors[name].ravel()).reshape(tensors[name].shape)
    save_file(tensors, file)


def _version(folder: Path) -> Version:
    (folder / MANIFEST).unlink(missing_ok=True)
    fields: dict[str, Any] = {"backend": "ngram", "languages": LANGUAGES, "licence": "own"}
    manifest = write_manifest(folder, model="nlu", version=1, recipe="bench", **fields)
    return Version("nlu", 1, folder, manifest)


def _dev(data: Path, language: str) -> list[dict[str, Any]]:
    return list(_lines(data / f"nlu/massive/{language}_dev.jsonl"))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def unseen(data: Path) -> dict[str, list[str]]:
    """The intents of the packs: 25 of CLINC150, drawn once, and 15 confusable ones of MASSIVE."""
    names = sorted({raw["intent"] for raw in _lines(data / "nlu/clinc150/train.jsonl")} - {"oos"})
    return {"en": random.Random(0).sample(names, 25), "ru": CONFUSABLE}


def held_out_trunk(data: Path, cache: Path) -> Path:
    """The folder of a trunk that was trained without the packs' intents; trained when neither
    params nor the recipe's code are those of the one that is there."""
    names = unseen(data)
    without = [f"clinc150/{name}" for name in names["en"]] + [f"massive/{n}" for n in names["ru"]]
    params = nlu_trunk.Params(without=tuple(without))
    modules = (nlu_trunk, network, batches, utterances)
    code = [Path(str(m.__file__)).read_bytes() for m in modules]
    code.append(params.model_dump_json().encode())
    folder = cache / f"nlu-{hashlib.sha256(b''.join(code)).hexdigest()[:16]}"
    if not (folder / "trunk.json").exists():
        print("training a trunk without the packs' intents ...", flush=True)
        nlu_trunk.run(data, folder, params)
    return folder


def packs(folder: Path, data: Path, seeds: int) -> tuple[dict[str, dict[str, list[float]]], float]:
    """Accuracy, and recall of what is out of scope where 5 % of the pack's utterances are lost, of
    heads from 15 utterances an intent; the seconds of the slowest.

    Out of scope is every development row in the language that is not of the pack's intents; those
    of the pack's own collection, its siblings, are the hardest and shown apart. The background is
    what travels with the trunk.
    """
    reader, names = heads.Reader(folder), unseen(data)
    train, dev = read_rows(data), _dev_rows(data)
    values: dict[str, dict[str, list[float]]] = {name: {} for name in [*list(BARS)[3:], SIBLINGS]}
    slowest = 0.0
    for language, task in (("en", "clinc150"), ("ru", "massive")):
        mine = set(names[language])
        others = heads.background(folder, [language])
        held = [row for row in dev if row.language == language]
        inside = [row for row in held if row.task == task and row.intents[0] in mine]
        outside = [row for row in held if row.task != task or row.intents[0] not in mine]
        sibling = np.array([row.task == task for row in outside])
        for seed in range(1, seeds + 1):
            started = time.process_time()
            rows = _few([r for r in train if (r.task, r.language) == (task, language)], mine, seed)
            head = heads.train(rows, others, reader, [language], heads.Params(seed=seed)).head
            slowest = max(slowest, time.process_time() - started)
            scores = _scores(head, reader, [row.text for row in inside])
            best = [head.labels[i] for i in scores[:, :-1].argmax(1)]
            right = [b == row.intents[0] for b, row in zip(best, inside, strict=True)]
            threshold = np.quantile(head.margin(scores), 0.05)
            told = head.margin(_scores(head, reader, [row.text for row in outside])) < threshold
            measured = (float(np.mean(right)), float(told.mean()), float(told[sibling].mean()))
            for by_language, value in zip(values.values(), measured, strict=True):
                by_language.setdefault(language, []).append(value)
    return values, slowest


def _dev_rows(data: Path) -> list[Row]:
    rows = [tagged_row("massive", raw) for name in LANGUAGES for raw in _dev(data, name)]
    rows += [tagged_row("snips", raw) for raw in _lines(data / "nlu/snips/dev.jsonl")]
    for task in ("clinc150", "banking77"):
        for raw in _lines(data / f"nlu/{task}/dev.jsonl"):
            rows.append(plain_row(task, raw, (raw["intent"],)))
    return rows


def _few(rows: Sequence[Row], names: set[str], seed: int) -> list[Labelled]:
    """15 utterances of each intent, drawn by the seed."""
    rng = random.Random(seed)
    few = []
    for name in sorted(names):
        texts = sorted({row.text for row in rows if row.intents[0] == name})
        few += [
            Labelled(text, name, text) for text in rng.sample(texts, min(UTTERANCES, len(texts)))
        ]
    return few


def _scores(head: Any, reader: heads.Reader, texts: Sequence[str]) -> Any:
    encoded = [reader.features.encode(text) for text in texts]
    pooled = reader.pooled(encoded)
    return np.stack([head.scores(e, p) for e, p in zip(encoded, pooled, strict=True)])
