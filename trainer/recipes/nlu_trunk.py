"""The trunk of the `ngram` backend: a small bilingual encoder of utterances, trained from scratch.

Words and hashed character n-grams -> a width-3 convolution -> two transformer layers with relative
position bias -> a state a word, and one vector an utterance (attention and max pooling). It learns
the intents and slots of public collections together; the heads it learns them with are thrown
away, packs bring their own (`trainer.recipes.intents`).

    python -m trainer.recipes.nlu_trunk --out models/nlu/1           # all of it, 7 CPU-minutes
    python -m trainer.recipes.nlu_trunk --out models/nlu/1 --heads   # the packs' heads alone
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from govor.config import Settings
from govor.domains import Pack, load_packs
from govor.repository import MANIFEST, Dataset, Manifest, write_manifest
from services.nlu.backends.features import Features, document_frequencies, keys_of
from trainer import heads, network
from trainer.batches import Batch, Drawing, Sampler, Task
from trainer.utterances import Row, background_rows, datasets, read_rows

CARD = """\
# nlu: a small bilingual model of what people want

A trunk (words and character n-grams, two transformer layers, 8-bit weights, fp32 arithmetic)
trained from scratch on English and Russian requests to assistants and services, and a linear head
for each domain pack. It says the intent of a short utterance, or that it is none of the pack's;
entities come from the pack's own lists, patterns and resolvers.

It was made for short requests, typed or transcribed. It knows no other language, reads the first
128 words of a text, and takes what is phrased like nothing in the pack for out of scope.

| measured by `python -m bench quality nlu`, mean of three heads | en | ru |
|---|---|---|
| MASSIVE, development rows: intent | 0.863 | 0.851 |
| the same, a typing mistake in every 20 characters | 0.832 | 0.825 |
| the same: slots, F1 | 0.767 | 0.743 |
| packs of 25 / 15 unseen intents, 15 utterances each: accuracy | 0.946 | 0.816 |
| the same: out of scope found at 5 % false alarms | 0.835 | 0.775 |

The last two rows are of a trunk trained without those intents. What the heads here score is in
`manifest.json` (`metrics`, by 4-fold cross-validation over templates): accuracy, false alarms,
share of the background that is told to be out of scope, expected calibration error.

Sources and licences: `datasets` in `manifest.json`. MASSIVE, BANKING77 and NLU++ are under
CC-BY-4.0, CLINC150 under CC-BY-3.0; `background.jsonl` holds rows of them.
"""
SCALE = 16.0  # pooled vectors have unit length: the heads' logits need room


class Params(Drawing):
    """What a training depends on. `without` names intents ("clinc150/book_flight") to leave out."""

    shape: network.Shape = network.Shape()
    steps: int = 6500
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    min_words: int = 2
    """How often a word must occur to get a row of its own."""
    grams: int = 30_000
    """How many character n-grams get one, the most frequent."""
    buckets: int = 16_384
    smoothing: float = 0.1
    slot_weight: float = 1.5
    twin_weight: float = 0.2
    average: float = 0.99
    """Decay of the average of the weights, every fourth step."""
    without: tuple[str, ...] = ()


@dataclass
class Prepared:
    """What training reads."""

    features: Features
    tasks: dict[str, Task]


def prepare(rows: Sequence[Row], params: Params) -> Prepared:
    """Chooses the vocabulary and groups the rows."""
    left_out = set(params.without)
    rows = [r for r in rows if r.words and not any(f"{r.task}/{i}" in left_out for i in r.intents)]
    counts, grams = Counter[int](), Counter[int]()
    for row in rows:
        for word in row.words:
            whole, *parts = keys_of(word)
            counts[whole] += 1
            grams.update(parts)
    keys = [key for key, count in counts.items() if count >= params.min_words]
    keys += [key for key, _ in sorted(grams.most_common(params.grams))]
    idf = document_frequencies([row.text for row in rows], params.buckets)
    tasks = {name: _task(name, rows) for name in params.shares}
    return Prepared(Features(keys, idf), {n: task for n, task in tasks.items() if task.rows})


def _task(name: str, rows: Sequence[Row]) -> Task:
    mine = [row for row in rows if row.task == name]
    names = sorted({intent for row in mine for intent in row.intents})
    tags = sorted({tag for row in mine for tag in row.tags or ()})
    return Task(mine, names, tags, many=any(len(row.intents) != 1 for row in mine))


@dataclass
class Trained:
    """The trunk, a torch module, averaged over the last steps; `loss` is that of the last 100."""

    trunk: Any
    sampler: Sampler
    loss: float
    seconds: float


def train(prepared: Prepared, params: Params, threads: int = 1) -> Trained:
    """AdamW, warm-up and cosine; bf16 where it pays."""
    import torch
    from torch import nn

    torch.manual_seed(params.seed)
    torch.set_num_threads(threads)
    started = time.process_time()
    model = _model(prepared, params)
    average = deepcopy(model)
    optimiser = torch.optim.AdamW(
        model.parameters(),
        lr=params.learning_rate,
        weight_decay=params.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )

    def rate(step: int) -> float:
        cosine = (1 + math.cos(math.pi * step / params.steps)) / 2
        return min(1.0, (step + 1) / 300) * (0.02 + 0.98 * cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    sampler = Sampler(prepared.tasks, prepared.features, params)
    step, running = 0, 0.0
    model.train()
    while step < params.steps:
        for batch in sampler.pool(min(40, params.steps - step)):
            loss = _loss(model, batch, params)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            step += 1
            if step % 4 == 0 and step > params.steps // 4:
                _average(average, model, params.average)
            running += (loss.item() - running) / min(step, 100)
            if step % 250 == 0:
                spent = time.process_time() - started
                print(f"step {step} loss {running:.3f} {spent:.0f} CPU-s", flush=True)
    final = average if params.steps > 400 else model
    return Trained(final["trunk"].eval(), sampler, running, time.process_time() - started)


def _average(average: Any, model: Any, decay: float) -> None:
    import torch

    with torch.no_grad():
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def _model(prepared: Prepared, params: Params) -> Any:
    """The trunk and a linear head a task."""
    from torch import nn

    tasks, shape = prepared.tasks, params.shape
    trunk = network.build(shape, prepared.features.size)
    names = {name: nn.Linear(2 * shape.width, len(task.intents)) for name, task in tasks.items()}
    tags = {n: nn.Linear(shape.width, len(task.tags)) for n, task in tasks.items() if task.tags}
    return nn.ModuleDict(
        {"trunk": trunk, "intents": nn.ModuleDict(names), "tags": nn.ModuleDict(tags)}
    )


def _forward(trunk: Any, batch: Batch) -> tuple[Any, Any]:
    import torch

    rows, longest = batch.mask.shape
    words = trunk.embed(batch.rows, batch.shares)
    grid = torch.zeros(rows * longest, words.shape[1]).index_copy(0, batch.places, words)
    with torch.autocast("cpu", torch.bfloat16, enabled=trunk.training):
        states, pooled = trunk(grid.view(rows, longest, -1), batch.mask)
    return states.float(), pooled.float()


def _loss(model: Any, batch: Batch, params: Params) -> Any:
    """Cross-entropy of intents and tags, and the distance between an utterance and its translation
    against those of the batch (InfoNCE)."""
    import torch
    from torch.nn import functional

    drop = params.shape.dropout
    states, pooled = _forward(model["trunk"], batch)
    dropped = functional.dropout(pooled, drop)
    total = torch.zeros(())
    rows = len(batch.mask)
    for name, (where, truth) in batch.intents.items():
        logits = model["intents"][name](dropped[where]) * SCALE
        if truth.is_floating_point():  # several intents a row; 10: about as large as the others
            loss = functional.binary_cross_entropy_with_logits(logits, truth) * 10
        else:
            loss = functional.cross_entropy(logits, truth, label_smoothing=params.smoothing)
        total = total + loss * len(where) / rows
    for name, (where, truth) in batch.tags.items():
        logits = model["tags"][name](functional.dropout(states[where], drop))
        loss = functional.cross_entropy(logits.flatten(0, 1), truth.flatten(), label_smoothing=0.05)
        total = total + params.slot_weight * loss * len(where) / rows
    if batch.pairs is not None:
        left, right = (functional.normalize(pooled[side], dim=-1) for side in batch.pairs)
        scores = left @ right.T * 10
        truth = torch.arange(len(left))
        both = functional.cross_entropy(scores, truth) + functional.cross_entropy(scores.T, truth)
        total = total + params.twin_weight * both / 2
    return total


def centre(trained: Trained, seed: int) -> Any:
    """The mean vector of training utterances, by which the exported trunk is centred."""
    import torch

    rows = [row for task in trained.sampler.tasks.values() for row in task.rows]
    sampled = random.Random(seed).sample(rows, min(4096, len(rows)))
    total = torch.zeros(())
    for start in range(0, len(sampled), 64):
        with torch.no_grad():
            batch = trained.sampler.batch(sampled[start : start + 64], None)
            total = total + _forward(trained.trunk, batch)[1].sum(0)
    return total / len(sampled)


def run(data: Path, out: Path, params: Params | None = None, threads: int = 1) -> dict[str, float]:
    """Trains on the collections under `data` and writes the trunk's files into `out`:
    `trunk.onnx`, `features.json`, `background.jsonl`, `datasets.json`."""
    params = params or Params()
    rows = read_rows(data)
    prepared = prepare(rows, params)
    trained = train(prepared, params, threads)
    others = background_rows(rows, data, frozenset(params.without))
    out.mkdir(parents=True, exist_ok=True)
    network.export(trained.trunk, centre(trained, params.seed), out / "trunk.onnx")
    prepared.features.save(out / "features.json")
    lines = [
        json.dumps(
            {"language": row.language, "collection": row.task, "text": row.text},
            ensure_ascii=False,
        )
        for row in others
    ]
    (out / "background.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    used = [row for task in prepared.tasks.values() for row in task.rows]
    sources = [
        d.model_dump() for d in datasets([*used, *(r for r in others if r.task == "rucola")])
    ]
    record = {"params": params.model_dump(), "datasets": sources}
    (out / "trunk.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return {"trunk.loss": trained.loss, "trunk.seconds": trained.seconds}


def add_heads(out: Path, packs: Sequence[Pack], metrics: dict[str, float]) -> Manifest:
    """Trains the heads of `packs` beside the trunk in `out` and writes the manifest."""
    record = json.loads((out / "trunk.json").read_text(encoding="utf-8"))
    sources = [Dataset.model_validate(entry) for entry in record["datasets"]]
    for pack in packs:
        numbers = heads.run(out, pack)
        metrics |= {f"{pack.name}.{key}": value for key, value in numbers.items()}
        sources.append(heads.dataset_of(pack))
    (out / "README.md").write_text(CARD, encoding="utf-8")
    return write_manifest(
        out,
        model="nlu",
        version=int(out.name),
        backend="ngram",
        languages=["en", "ru"],
        recipe="trainer/recipes/nlu_trunk.py",
        params=record["params"],
        datasets=sources,
        metrics=metrics,
        description="A bilingual trunk with 8-bit weights, and a linear head for each pack",
        licence="Apache-2.0; the collections keep theirs (see datasets)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    settings = Settings()
    data = Path(os.environ.get("GOVOR_DATA") or settings.home.parent / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the version's folder, a number")
    parser.add_argument("--data", type=Path, default=data, help="the collections (GOVOR_DATA)")
    parser.add_argument("--heads", action="store_true", help="keep the trunk that is there")
    options = parser.parse_args(arguments)
    if options.heads:
        known = Manifest.model_validate_json((options.out / MANIFEST).read_bytes()).metrics
        metrics = {key: value for key, value in known.items() if key.startswith("trunk.")}
    else:
        metrics = run(options.data, options.out)
    packs = load_packs(settings.domains_folder)
    manifest = add_heads(options.out, list(packs.values()), metrics)
    for key, value in manifest.metrics.items():
        print(f"{key:<36}{value:.4f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
