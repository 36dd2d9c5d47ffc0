"""The head of a public collection with intents and slots, over a trunk that stays as it is.

Such heads measure the trunk; none is given away in `models/`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.nlu.backends.heads import Head
from services.nlu.backends.tagger import Tagger, allowed_steps, with_neighbours
from services.nlu.backends.trunk import Read
from trainer.batches import Drawing, Sampler, Task
from trainer.heads import Reader
from trainer.utterances import Row

Floats = NDArray[np.float32]

# Score of the TF-IDF classifier against the trunk's log-probability. With thousands of rows two
# classifiers apart beat one over both (on a tenth of the training rows, typing mistakes in them:
# 0.823 / 0.828 against 0.818 / 0.813).
SPARSE_WEIGHT = 4.0
# Share of the habits in the steps of the tagger.
HABITS = 0.1


def train(rows: Sequence[Row], reader: Reader, languages: Sequence[str], seed: int = 1) -> Head:
    """Fits intents and tags on `rows`, whose tags are one a word.

    A trunk that was trained on these very rows knows them by heart: its part of the head learns
    from variations of them (a tenth of the training rows: intents +0.6 / +0.1 points).
    """
    labels = sorted({row.intents[0] for row in rows})
    number = {label: i for i, label in enumerate(labels)}
    truth = np.array([number[row.intents[0]] for row in rows])
    split = len(reader.features.idf)
    matrix = reader.matrix([row.text for row in rows], 1.0)
    sparse, sparse_bias = _svm(matrix[:, :split], truth, seed)
    varied = _varied(rows, reader, seed)
    reads = reader.read([" ".join(row.words) for row in varied])
    pooled = np.stack([read.pooled for read in reads])
    dense, dense_bias = softmax(pooled, truth, seed, scale=16.0, epochs=6)
    weights = np.concatenate([SPARSE_WEIGHT * sparse, dense], 1).astype(np.float32)
    bias = (SPARSE_WEIGHT * sparse_bias + dense_bias).astype(np.float32)
    head = Head(labels, list(languages), weights, bias, background=False)
    if any(row.tags for row in rows):
        reads += reader.read([" ".join(row.words) for row in rows])
        head.tagger = tagger(reads, [*varied, *rows], seed)
    return head


def _varied(rows: Sequence[Row], reader: Reader, seed: int) -> list[Row]:
    rng = random.Random(seed)
    task = Task(list(rows), [], [])
    sampler = Sampler({"": task}, reader.features, Drawing(swapped=0.7, noisy=0.5))
    return [sampler.varied(row, rng) for row in rows]


def tagger(reads: Sequence[Read], rows: Sequence[Row], seed: int) -> Tagger:
    """A linear layer over the states of a word and its neighbours; steps that BIO forbids stay
    forbidden, the others get part of the log of how much likelier than by chance they are."""
    kept = [
        (read.states, row.tags)
        for read, row in zip(reads, rows, strict=True)
        if row.tags and len(row.tags) == len(read.states)
    ]
    tags = [list(row_tags) for _, row_tags in kept]
    names = sorted({tag for row_tags in tags for tag in row_tags})
    number = {name: i for i, name in enumerate(names)}
    truth = np.array([number[tag] for row_tags in tags for tag in row_tags])
    x = np.concatenate([with_neighbours(states) for states, _ in kept])
    weights, bias = softmax(x, truth, seed, smoothing=0.05, epochs=4, batch=512, rate=5e-3)
    return Tagger(names, weights, bias, allowed_steps(names) + HABITS * _habits(names, tags))


def softmax(
    x: Floats,
    truth: NDArray[np.int64],
    seed: int,
    *,
    scale: float = 1.0,
    smoothing: float = 0.1,
    epochs: int,
    batch: int = 256,
    drop: float = 0.2,
    rate: float = 2e-2,
) -> tuple[Floats, Floats]:
    """Softmax regression by AdamW with dropout on its inputs: weights [classes, features], bias.
    `scale` multiplies the logits, for inputs of unit length."""
    import torch
    from torch.nn import functional

    torch.manual_seed(seed)
    inputs, targets = torch.from_numpy(x), torch.from_numpy(truth)
    layer = torch.nn.Linear(x.shape[1], int(truth.max()) + 1)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=rate, weight_decay=1e-3)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for _ in range(epochs):
        for part in torch.split(torch.randperm(len(x)), batch):
            optimiser.zero_grad()
            logits = layer(functional.dropout(inputs[part], drop)) * scale
            loss = functional.cross_entropy(logits, targets[part], label_smoothing=smoothing)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
    weights = layer.weight.detach().numpy() * np.float32(scale)
    return weights, layer.bias.detach().numpy() * np.float32(scale)


def _svm(matrix: object, truth: NDArray[np.int64], seed: int) -> tuple[Floats, Floats]:
    from sklearn.svm import LinearSVC

    model = LinearSVC(C=0.3, dual=True, tol=1e-3, random_state=seed).fit(matrix, truth)
    return model.coef_, model.intercept_


def _habits(names: Sequence[str], tags: Sequence[Sequence[str]]) -> Floats:
    number = {name: i for i, name in enumerate(names)}
    counts = np.full((len(names) + 1, len(names)), 0.5)
    for row in tags:
        before = len(names)
        for tag in row:
            counts[before, number[tag]] += 1
            before = number[tag]
    likely = counts / counts.sum(1, keepdims=True)
    chance = counts.sum(0) / counts.sum()
    habits: Floats = np.log(likely / chance).astype(np.float32)
    return habits
