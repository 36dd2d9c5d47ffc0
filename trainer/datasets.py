"""Dataset versions: rows that never change, kept under their digest, and where rows come from.

    <lake>/datasets/<name>/<SHA-256 of the file>.jsonl        a row a line

A head of the `nlu` model learns the pack's utterances and what people said was right of their own
turns, if they consented to `train`.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.engine import Connection

from govor.domains import Pack
from govor.errors import NotFound
from govor.masking import mask
from govor.repository import write_atomically
from govor.tables import conversation, feedback, turn
from govor.templates import Lists, Template, TemplateError, pack_lists
from govor.text import words

MAX_VALUES = 200  # of one entity, as sentences of their own
CORRECTION = "correction: "
"""Begins the group of what a person corrected; no template's does: they begin with an intent."""
OUT_OF_SCOPE = "out_of_scope"
"""What a person corrects an intent to when none of the pack's was meant."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Labelled:
    """A sentence of an intent, or of none; sentences of one `group` (a template) stay in one fold.

    `language` is empty where nobody asks for it.
    """

    text: str
    intent: str | None
    group: str
    language: str = ""


@dataclass(frozen=True)
class DatasetVersion:
    """Rows under their digest; `sources` says where they came from and what was left out."""

    name: str
    digest: str
    rows: tuple[Labelled, ...]
    sources: list[dict[str, Any]] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """The row of the table `dataset_version`."""
        return {
            "name": self.name,
            "digest": self.digest,
            "rows": len(self.rows),
            "sources": self.sources,
            "created_at": datetime.now(UTC),
        }


def write(
    lake: Path, name: str, rows: Sequence[Labelled], sources: list[dict[str, Any]]
) -> DatasetVersion:
    """Keeps the rows in their order; the same rows are the same version."""
    lines = [json.dumps(asdict(row), ensure_ascii=False, sort_keys=True) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode()
    digest = hashlib.sha256(data).hexdigest()
    file = _file(lake, name, digest)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it may hold what people said
    if not file.is_file():
        write_atomically(file, data)
    return DatasetVersion(name, digest, tuple(rows), sources)


def read(lake: Path, name: str, digest: str) -> DatasetVersion:
    """An earlier version. Raises `NotFound` (`dataset_not_found`); `ValueError` when its file was
    changed."""
    file = _file(lake, name, digest)
    if not _DIGEST.fullmatch(digest) or not file.is_file():
        raise NotFound(
            f"there is no version {digest} of the dataset {name}",
            code="dataset_not_found",
            param="dataset",
        )
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{file} is not what was written")
    rows = tuple(Labelled(**json.loads(line)) for line in data.splitlines())
    return DatasetVersion(name, digest, rows)


def _file(lake: Path, name: str, digest: str) -> Path:
    return lake / "datasets" / name / f"{digest}.jsonl"


def spelt(text: str) -> tuple[str, ...]:
    """What makes two texts the same to a model: their words."""
    return tuple(word.text for word in words(text))


def without(
    rows: Sequence[Labelled], frozen: Collection[tuple[str, ...]]
) -> tuple[list[Labelled], int]:
    """The rows that say nothing of a frozen set, and how many do."""
    kept = [row for row in rows if spelt(row.text) not in frozen]
    return kept, len(rows) - len(kept)


def pack_rows(pack: Pack, samples: int, seed: int) -> list[Labelled]:
    """Sentences of the pack, drawn evenly from the templates of each intent and language; then its
    near misses (`not_this`), which are of no intent."""
    rows = []
    for language in pack.languages:
        lists = pack_lists(pack, language)
        for intent in pack.intents:
            templates = pack.templates(intent, language)
            each = max(3, samples // max(1, len(templates)))
            for template in templates:
                try:
                    texts = _sentences(template, lists, each, seed)
                except TemplateError:  # an entity that this language has no forms of
                    continue
                group = f"{intent} {template.text}"
                rows += [Labelled(text, intent, group, language) for text in texts]
    return [*rows, *_near_misses(pack)]


def _sentences(template: Template, lists: Lists, each: int, seed: int) -> list[str]:
    """Up to `each` sentences, drawn by the seed; all values of a template that is but an entity,
    because one of them says nothing of the others ("leo", "libra")."""
    if template.text == "".join(f"{{{name}}}" for name in template.entities()):
        return [sample.text for sample in template.expand(lists, MAX_VALUES)]
    rng = random.Random(f"{seed} {template.text}")
    return sorted({template.sample(rng, lists).text for _ in range(2 * each)})[:each]


def _near_misses(pack: Pack) -> Iterator[Labelled]:
    for spec in pack.intents.values():
        for language, texts in spec.not_this.items():
            for text in texts:
                yield Labelled(text, None, text, language)


@dataclass(frozen=True)
class Corrections:
    """What people corrected: rows in the order of their words, the ids of the feedback that they
    come from, and what was left out, by reason."""

    rows: list[Labelled]
    feedback: list[str]
    left_out: dict[str, int]


def corrected(connection: Connection, domain: str) -> Sequence[Row[Any]]:
    """The corrected intents of conversations in a domain whose people consented to `train`, the
    oldest first: `id`, `turn_id`, `corrected_intent`, `text` (none once it is no longer kept),
    `language`."""
    asked: Any = (
        select(
            feedback.c.id,
            feedback.c.turn_id,
            feedback.c.corrected_intent,
            func.coalesce(feedback.c.corrected_transcript, turn.c.utterance).label("text"),
            turn.c.language,
        )
        .join(turn, turn.c.id == feedback.c.turn_id)
        .join(conversation, conversation.c.id == feedback.c.conversation_id)
        .where(
            feedback.c.corrected_intent.is_not(None),
            conversation.c.domain == domain,
            conversation.c.consent == "train",
            conversation.c.deleted_at.is_(None),
        )
        .order_by(feedback.c.at, feedback.c.id)
    )
    return connection.execute(asked).all()


def corrections(
    found: Sequence[Row[Any]], pack: Pack, known: Sequence[Labelled] = ()
) -> Corrections:
    """What of `corrected` is learnt. The last word on a turn counts, and on a text: one turn is one
    row at most, however often somebody corrects it.

    `known` are the pack's own rows: what its author wrote down is not corrected by a caller. Texts
    are masked once more, because the rules may have grown since they were stored, and a dataset is
    kept for longer. That takes 0.2 to 3 ms a text: not within a transaction.
    """
    own = {spelt(row.text) for row in known}
    last = {row.turn_id: row.id for row in found}
    latest: dict[tuple[str, ...], tuple[Labelled, str]] = {}
    left_out: Counter[str] = Counter()
    for one in found:
        if last[one.turn_id] != one.id:
            left_out["corrected again"] += 1
            continue
        text = mask(one.text or "")
        intent = None if one.corrected_intent == OUT_OF_SCOPE else one.corrected_intent
        if not spelt(text):
            left_out["text no longer kept"] += 1
        elif intent is not None and intent not in pack.intents:
            left_out["not an intent of the pack"] += 1
        elif spelt(text) in own:
            left_out["an utterance of the pack itself"] += 1
        else:
            row = Labelled(text, intent, f"{CORRECTION}{text}", one.language)
            latest[spelt(text)] = row, one.id
    chosen = [latest[key] for key in sorted(latest)]
    return Corrections([row for row, _ in chosen], [key for _, key in chosen], dict(left_out))
