"""Labelled utterances of public collections, as the trunk of the `nlu` model learns from them.

MASSIVE and SNIPS bring intents and slots, CLINC150, BANKING77 and NLU++ intents. Only collections
whose licence allows weights to be given away are read.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from govor.repository import Dataset
from govor.text import words

SOURCES = {
    "massive": ("MASSIVE 1.1, en-US and ru-RU (FitzGerald et al. 2022)", "CC-BY-4.0"),
    "clinc150": ("CLINC150 (Larson et al. 2019)", "CC-BY-3.0"),
    "banking77": ("BANKING77 (Casanueva et al. 2020)", "CC-BY-4.0"),
    "snips": ("SNIPS NLU benchmark (Coucke et al. 2018)", "CC0-1.0"),
    "nlupp": ("NLU++ (Casanueva et al. 2022)", "CC-BY-4.0"),
    "rucola": ("RuCoLA (Mikhailov et al. 2022)", "Apache-2.0"),
}

# What every bot is told: no background for a pack that has a greeting of its own.
SMALL_TALK = frozenset(
    {
        "massive/general_greet",
        "clinc150/greeting",
        "clinc150/goodbye",
        "clinc150/thank_you",
        "clinc150/yes",
        "clinc150/no",
        "clinc150/maybe",
        "clinc150/repeat",
        "clinc150/cancel",
        "clinc150/who_made_you",
        "clinc150/what_is_your_name",
        "clinc150/are_you_a_bot",
        "clinc150/what_can_i_ask_you",
        "nlupp/",  # NLU++ rows without an intent: "hello", "okay"
        *(f"nlupp/{name}" for name in ("affirm", "deny", "greet", "thank", "acknowledge")),
        *(
            f"nlupp/{name}"
            for name in ("end_call", "handoff", "dont_know", "cancel_close_leave_freeze")
        ),
    }
)

# Rows of the background by collection and language.
BACKGROUND = {
    ("clinc150", "en"): 450,
    ("banking77", "en"): 150,
    ("massive", "en"): 300,
    ("snips", "en"): 200,
    ("nlupp", "en"): 100,
    ("massive", "ru"): 900,
    ("rucola", "ru"): 300,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled utterance; `tags` are BIO, one a word, where the collection has them."""

    task: str
    key: str
    text: str
    words: tuple[str, ...]
    intents: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    @property
    def language(self) -> str:
        """Both MASSIVE halves share ids and labels: the script tells."""
        return "ru" if any("а" <= c <= "я" for c in self.text.lower()) else "en"


def read_rows(data: Path) -> list[Row]:
    """The training rows of all collections under `<data>/nlu`."""
    rows = []
    for language in ("en", "ru"):
        for raw in _lines(data / f"nlu/massive/{language}_train.jsonl"):
            rows.append(tagged_row("massive", raw))
    rows += [tagged_row("snips", raw) for raw in _lines(data / "nlu/snips/train.jsonl")]
    for task in ("clinc150", "banking77"):
        for raw in _lines(data / f"nlu/{task}/train.jsonl"):
            rows.append(plain_row(task, raw, (raw["intent"],)))
    for raw in _lines(data / "nlu/nlupp/train.jsonl"):
        rows.append(plain_row("nlupp", raw, tuple(raw["intents"])))
    return rows


def plain_row(task: str, raw: Mapping[str, Any], intents: tuple[str, ...]) -> Row:
    """A row of a collection without slots."""
    spelt = tuple(word.text for word in words(raw["text"]))
    return Row(task, str(raw["id"]), raw["text"], spelt, intents)


def tagged_row(task: str, raw: Mapping[str, Any]) -> Row:
    """A row with slots: the collection's tokens split into our words, the tag of each passed on."""
    spelt: list[str] = []
    tags: list[str] = []
    for token, tag in zip(raw["tokens"], raw["tags"], strict=True):
        parts = [word.text for word in words(token)]
        spelt += parts
        tags += [tag, *[tag.replace("B-", "I-")] * (len(parts) - 1)][: len(parts)]
    text = raw.get("text") or " ".join(raw["tokens"])
    return Row(task, str(raw["id"]), text, tuple(spelt), (raw["intent"],), tuple(tags))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def background_rows(rows: Sequence[Row], data: Path, without: frozenset[str]) -> list[Row]:
    """Utterances of no pack in particular: the class of what is out of a pack's scope.

    `without` names intents ("clinc150/book_flight") that must not be in it.
    """
    left_out = without | SMALL_TALK
    sentences = [
        plain_row("rucola", raw, ())
        for raw in _lines(data / "text/rucola/train.jsonl")
        if raw["acceptable"] and 3 <= len(raw["text"].split()) <= 12
    ]
    kept = [
        row
        for row in [*rows, *sentences]
        if row.words and not left_out & {f"{row.task}/{i}" for i in row.intents or ("",)}
    ]
    chosen = []
    for (task, language), count in BACKGROUND.items():
        mine = [row for row in kept if (row.task, row.language) == (task, language)]
        chosen += random.Random(task).sample(mine, min(count, len(mine)))
    return chosen


def datasets(rows: Sequence[Row]) -> list[Dataset]:
    """The collections that rows come from, with a digest of what was used of each."""
    found = []
    for task, (source, licence) in SOURCES.items():
        lines = sorted(f"{r.key}\t{r.text}\t{r.intents}\t{r.tags}" for r in rows if r.task == task)
        if lines:
            digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
            found.append(Dataset(name=task, source=source, licence=licence, digest=digest))
    return found
