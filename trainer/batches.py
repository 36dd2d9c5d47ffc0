"""Batches of utterances for the `nlu` trunk: drawn by collection, spoilt a little, padded."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from services.nlu.backends.features import Features
from services.nlu.backends.tagger import spans
from trainer.utterances import Row

IGNORED = -100  # the label that a loss leaves out


class Drawing(BaseModel):
    """How batches are drawn. Shares are of utterances (`shares`, `swapped`, `noisy`), of words
    (`word_drop`) and of letters of the noisy ones (`noise`)."""

    seed: int = 1
    batch: int = 64
    shares: dict[str, float] = {
        "massive": 0.66, "clinc150": 0.16, "banking77": 0.09, "snips": 0.06, "nlupp": 0.03
    }  # fmt: skip
    twins: float = 0.5
    """Share of MASSIVE rows that bring their translation along."""
    swapped: float = 0.35
    word_drop: float = 0.12
    noisy: float = 0.35
    noise: float = 0.06


@dataclass
class Task:
    """The rows of a collection and its label sets."""

    rows: list[Row]
    intents: list[str]
    tags: list[str] = field(default_factory=list)
    many: bool = False


ALPHABETS = {True: "abcdefghijklmnopqrstuvwxyz", False: "абвгдежзийклмнопрстуфхцчшщъыьэюя"}


def mistype(word: str, rng: random.Random) -> str:
    """The word with one letter left out, doubled, swapped with the next or replaced."""
    place = rng.randrange(len(word))
    letter = rng.choice(ALPHABETS[word.isascii()])
    change = rng.randrange(4)
    if change == 0 and len(word) > 1:
        return word[:place] + word[place + 1 :]
    if change == 1:
        return word[:place] + letter + word[place:]
    if change == 2 and place + 1 < len(word):
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return word[:place] + letter + word[place + 1 :]


@dataclass
class Batch:
    """Padded inputs and, by task, which rows of the batch carry its labels."""

    rows: Any
    shares: Any
    places: Any
    mask: Any
    intents: dict[str, tuple[Any, Any]]
    tags: dict[str, tuple[Any, Any]]
    pairs: tuple[Any, Any] | None


class Sampler:
    """Draws batches: tasks by their shares, an English MASSIVE row with its Russian twin."""

    def __init__(self, tasks: Mapping[str, Task], features: Features, drawing: Drawing) -> None:
        self.tasks, self.features, self.drawing = tasks, features, drawing
        self.rng = random.Random(drawing.seed)
        self.order: dict[str, list[int]] = {name: [] for name in tasks}
        self.twins: dict[str, list[Row]] = {}
        massive = tasks.get("massive")
        for row in massive.rows if massive else ():
            self.twins.setdefault(row.key, []).append(row)
        self.values: dict[tuple[str, bool], list[tuple[str, ...]]] = {}
        for row in (row for task in tasks.values() for row in task.rows if row.tags):
            for name, first, last in spans(row.tags or ()):
                key = f"{row.task} {name}", row.text.isascii()
                self.values.setdefault(key, []).append(row.words[first:last])
        self.numbers = {
            name: (_numbers(task.intents), _numbers(task.tags)) for name, task in tasks.items()
        }

    def pool(self, batches: int) -> Iterator[Batch]:
        """`batches` batches of rows of about the same length."""
        units: list[list[Row]] = []
        names = list(self.tasks)
        shares = [self.drawing.shares[name] for name in names]
        count = 0
        while count < batches * self.drawing.batch:
            unit = self._unit(self.rng.choices(names, shares)[0])
            units.append(unit)
            count += len(unit)
        units.sort(key=lambda unit: max(len(row.words) for row in unit) + self.rng.random() * 3)
        rows = [row for unit in units for row in unit]
        starts = list(range(0, batches * self.drawing.batch, self.drawing.batch))
        self.rng.shuffle(starts)
        for start in starts:
            yield self.batch(rows[start : start + self.drawing.batch], self.rng)

    def _unit(self, name: str) -> list[Row]:
        rows = self.tasks[name].rows
        if not self.order[name]:
            self.order[name] = self.rng.sample(range(len(rows)), len(rows))
        row = rows[self.order[name].pop()]
        if name == "massive" and self.rng.random() < self.drawing.twins:
            return self.twins[row.key]
        return [row]

    def batch(self, rows: Sequence[Row], rng: random.Random | None) -> Batch:
        """Tensors of `rows`; words are dropped and mistyped when `rng` is given."""
        import torch

        rows = [self._swapped(row, rng) for row in rows] if rng else rows
        spelt = [self._spoilt(row.words, rng) if rng else row.words for row in rows]
        known = [[self._rows(word, rng) for word in each] for each in spelt]
        longest = max(map(len, known))
        flat = [word for each in known for word in each]
        table, shares = padded(flat)
        places = [i * longest + j for i, each in enumerate(known) for j in range(len(each))]
        mask = np.zeros((len(rows), longest), bool)
        mask.reshape(-1)[places] = True
        intents: dict[str, tuple[Any, Any]] = {}
        tags: dict[str, tuple[Any, Any]] = {}
        for name, task in self.tasks.items():
            mine = [i for i, row in enumerate(rows) if row.task == name]
            if mine:
                self._label(name, task, rows, mine, longest, intents, tags)
        return Batch(
            torch.from_numpy(table), torch.from_numpy(shares), torch.tensor(places),
            torch.from_numpy(mask), intents, tags, self._pairs(rows),
        )  # fmt: skip

    def _label(
        self, name: str, task: Task, rows: Sequence[Row], mine: list[int], longest: int,
        intents: dict[str, tuple[Any, Any]], tags: dict[str, tuple[Any, Any]],
    ) -> None:  # fmt: skip
        import torch

        intent_of, tag_of = self.numbers[name]
        where = torch.tensor(mine)
        if task.many:
            truth = torch.zeros(len(mine), len(task.intents))
            for k, i in enumerate(mine):
                truth[k, [intent_of[x] for x in rows[i].intents]] = 1
            intents[name] = where, truth
        else:
            known = [intent_of.get(rows[i].intents[0], IGNORED) for i in mine]
            intents[name] = where, torch.tensor(known)
        if task.tags:
            grid = np.full((len(mine), longest), IGNORED)
            for k, i in enumerate(mine):
                marks = rows[i].tags or ()
                grid[k, : len(marks)] = [tag_of.get(tag, IGNORED) for tag in marks]
            tags[name] = where, torch.from_numpy(grid)

    def _pairs(self, rows: Sequence[Row]) -> tuple[Any, Any] | None:
        import torch

        seen: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            if row.task == "massive":
                seen.setdefault(row.key, []).append(i)
        pairs = [places[:2] for places in seen.values() if len(places) > 1]
        if len(pairs) < 4:
            return None
        left, right = zip(*pairs, strict=True)
        return torch.tensor(left), torch.tensor(right)

    def varied(self, row: Row, rng: random.Random) -> Row:
        """The row with other values in its slots and typing mistakes, or as it is."""
        swapped = self._swapped(row, rng)
        return replace(swapped, words=self._spoilt(swapped.words, rng))

    def _swapped(self, row: Row, rng: random.Random) -> Row:
        """The row with other values of the same slots, or as it is."""
        if not row.tags or rng.random() >= self.drawing.swapped:
            return row
        spelt, tags = list(row.words), list(row.tags)
        for name, first, last in reversed(list(spans(row.tags))):
            value = rng.choice(self.values[f"{row.task} {name}", row.text.isascii()])
            spelt[first:last] = value
            tags[first:last] = [f"B-{name}", *[f"I-{name}"] * (len(value) - 1)]
        return replace(row, words=tuple(spelt), tags=tuple(tags))

    def _spoilt(self, spelt: tuple[str, ...], rng: random.Random) -> tuple[str, ...]:
        if rng.random() >= self.drawing.noisy:
            return spelt
        noise = self.drawing.noise
        return tuple(
            mistype(w, rng) if rng.random() < 1 - (1 - noise) ** len(w) else w for w in spelt
        )

    def _rows(self, word: str, rng: random.Random | None) -> tuple[int, ...]:
        rows = self.features.rows(word)
        if rng is None:
            return rows
        draw = rng.random()
        if draw < self.drawing.word_drop / 2:
            return (1,)
        return (1, *rows[1:]) if draw < self.drawing.word_drop * 1.5 else rows


def padded(flat: Sequence[tuple[int, ...]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of words as a rectangle, and each row's share in its word: 1 for the whole word's, and
    1 for all grams together."""
    table = np.zeros((len(flat), max(map(len, flat))), np.int64)
    shares = np.zeros(table.shape, np.float32)
    for i, rows in enumerate(flat):
        table[i, : len(rows)] = rows
        shares[i, 0] = 1
        shares[i, 1 : len(rows)] = 1 / max(1, len(rows) - 1)
    return table, shares


def _numbers(labels: Sequence[str]) -> dict[str, int]:
    return {label: number for number, label in enumerate(labels)}
