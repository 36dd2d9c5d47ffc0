"""trainer/datasets.py"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert
from sqlalchemy.engine import Connection

from govor.database import migrate, transaction
from govor.domains import Pack, load_pack
from govor.errors import NotFound
from govor.tables import conversation, feedback, turn
from tests.packs.pizza import write as write_pack
from trainer.datasets import (
    OUT_OF_SCOPE,
    Labelled,
    corrected,
    corrections,
    pack_rows,
    read,
    spelt,
    without,
    write,
)

HOME = Path(__file__).resolve().parents[2]
ROWS = [
    Labelled("read me the stars", "horoscope", "t", "en"),
    Labelled("привет\u2028ещё", None, "n", "ru"),
]
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_the_same_rows_are_the_same_version(tmp_path: Path) -> None:
    first = write(tmp_path, "intents-x", ROWS, [{"name": "pack x"}])
    assert write(tmp_path, "intents-x", ROWS, []).digest == first.digest
    assert write(tmp_path, "intents-x", ROWS[:1], []).digest != first.digest
    assert read(tmp_path, "intents-x", first.digest).rows == tuple(ROWS)
    assert first.record()["rows"] == 2


@pytest.mark.parametrize("digest", ["0" * 64, "../../secret", "", "A" * 64])
def test_a_version_that_is_not_there_is_not_found(tmp_path: Path, digest: str) -> None:
    with pytest.raises(NotFound) as missing:
        read(tmp_path, "intents-x", digest)
    assert (missing.value.code, missing.value.param) == ("dataset_not_found", "dataset")


def test_a_version_that_was_changed_is_refused(tmp_path: Path) -> None:
    digest = write(tmp_path, "intents-x", ROWS, []).digest
    [file] = tmp_path.rglob("*.jsonl")
    file.write_text(file.read_text().replace("stars", "moons"))
    with pytest.raises(ValueError, match="not what was written"):
        read(tmp_path, "intents-x", digest)


def test_only_its_owner_reads_what_people_said(tmp_path: Path) -> None:
    write(tmp_path, "intents-x", ROWS, [])
    assert (tmp_path / "datasets" / "intents-x").stat().st_mode & 0o077 == 0


def test_samples_cover_every_template_and_keep_them_in_one_fold() -> None:
    pack = load_pack(HOME / "domains" / "horoscope")
    drawn = [row for row in pack_rows(pack, 60, 1) if row.intent is not None]
    templates = {f"{i} {t.text}" for lang in pack.languages for i, t in pack.utterances(lang)}
    assert {row.group for row in drawn} == templates
    assert {row.intent for row in drawn} == set(pack.intents)


def test_what_a_frozen_set_asks_is_left_out() -> None:
    asked = {spelt("Read me, the STARS!")}
    assert without(ROWS, asked) == (ROWS[1:], 1)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return load_pack(write_pack(tmp_path))


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    url = f"sqlite:///{tmp_path / 'govor.db'}"
    migrate(url)
    with transaction(url) as opened:
        yield opened


def correct(
    connection: Connection,
    key: str,
    said: str | None,
    intent: str | None,
    *,
    transcript: str | None = None,
    consent: str = "train",
    domain: str = "pizza",
    deleted: bool = False,
    minutes: int = 0,
) -> None:
    at = NOW + timedelta(minutes=minutes)
    about = {"domain": domain, "consent": consent, "version": 1, "created_at": at, "updated_at": at}
    connection.execute(
        insert(conversation), {"id": key, **about, "deleted_at": at if deleted else None}
    )
    spoken: dict[str, object] = {"language": "en", "utterance": said, "steps": [], "degraded": []}
    connection.execute(insert(turn), {"id": key, "conversation_id": key, "at": at, **spoken})
    ids = {"id": key, "turn_id": key, "conversation_id": key, "at": at, "rating": -1}
    right = {"corrected_intent": intent, "corrected_transcript": transcript}
    connection.execute(insert(feedback), ids | right)


def test_corrections_are_of_the_pack_and_with_consent_to_train(
    connection: Connection, pack: Pack
) -> None:
    correct(connection, "a", "flatbread for me", "order")
    for consent in ("answer", "store", "audio"):
        correct(connection, consent, f"flatbread {consent}", "order", consent=consent)
    correct(connection, "b", "flatbread there", "order", domain="support")
    correct(connection, "c", "flatbread gone", "order", deleted=True)
    correct(connection, "d", "nothing corrected", None)
    found = corrections(corrected(connection, "pizza"), pack)
    assert found.rows == [
        Labelled("flatbread for me", "order", "correction: flatbread for me", "en")
    ]
    assert (found.feedback, found.left_out) == (["a"], {})


def test_the_last_word_on_a_text_counts(connection: Connection, pack: Pack) -> None:
    correct(connection, "a", "Flatbread, please", "hours", minutes=2)
    correct(connection, "b", "flatbread please", "order", minutes=1)
    correct(connection, "c", "how tall is the tower", OUT_OF_SCOPE)
    correct(connection, "d", "flat red", "order", transcript="flat bread")
    found = corrections(corrected(connection, "pizza"), pack)
    assert [(row.text, row.intent) for row in found.rows] == [
        ("flat bread", "order"),
        ("Flatbread, please", "hours"),
        ("how tall is the tower", None),
    ]
    assert found.feedback == ["d", "a", "c"]


def test_a_turn_is_one_row_however_often_it_is_corrected(
    connection: Connection, pack: Pack
) -> None:
    correct(connection, "a", "flat red", "order")
    for minute, transcript in enumerate(["flat bed", "fat bread", "flat bread"], 1):
        again = {"id": f"a{minute}", "turn_id": "a", "conversation_id": "a", "rating": -1}
        right = {"corrected_transcript": transcript, "corrected_intent": "order"}
        at = NOW + timedelta(minutes=minute)
        connection.execute(insert(feedback), again | right | {"at": at})
    found = corrections(corrected(connection, "pizza"), pack)
    assert [row.text for row in found.rows] == ["flat bread"]
    assert (found.feedback, found.left_out) == (["a3"], {"corrected again": 3})


def test_what_cannot_be_learnt_is_counted(connection: Connection, pack: Pack) -> None:
    correct(connection, "a", None, "order")
    correct(connection, "b", "fly me to the moon", "fly")
    correct(connection, "c", "When are you open?", "order")
    found = corrections(corrected(connection, "pizza"), pack, pack_rows(pack, 60, 1))
    assert found.rows == []
    assert found.left_out == {
        "text no longer kept": 1,
        "not an intent of the pack": 1,
        "an utterance of the pack itself": 1,
    }


def test_what_is_kept_is_masked(connection: Connection, pack: Pack) -> None:
    correct(connection, "a", "one for anna@example.com", "order")
    [row] = corrections(corrected(connection, "pizza"), pack).rows
    assert "anna@example.com" not in row.text + row.group
