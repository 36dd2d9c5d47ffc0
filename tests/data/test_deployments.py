"""govor/repository.py and govor/database.py: who deploys may die at any moment, and has a row."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from govor import registry, repository
from govor.config import Settings
from govor.database import migrate, record_deployment, transaction
from govor.repository import DEPLOYMENT, EVENT, Repository, deploy, record_last
from govor.tables import deployment_event

FACTS: dict[str, Any] = {
    "backend": "word",
    "languages": ["en"],
    "recipe": "tests",
    "licence": "Apache-2.0",
}


class Died(BaseException):
    """What a killed process leaves: nothing after this line ran."""


def die(_: object) -> None:
    raise Died


@pytest.fixture
def words(tmp_path: Path) -> Repository:
    """The model `word` with versions 1 and 2; without a deployment, 2 serves."""
    made = Repository(tmp_path / "var" / "models", tmp_path / "none")
    source = tmp_path / "word"
    source.mkdir()
    for _ in range(2):
        made.publish("word", source, **FACTS)
    return made


@pytest.fixture
def url(tmp_path: Path) -> str:
    settings = Settings(var=tmp_path / "var")
    migrate(settings.database)
    return settings.database


def written(url: str) -> list[tuple[int, str, int, int]]:
    with transaction(url) as connection:
        rows = connection.execute(select(deployment_event).order_by(deployment_event.c.id)).all()
    return [
        (row.generation, row.actor, row.before["champion"], row.after["champion"]) for row in rows
    ]


def anna_dies_before_her_row(words: Repository) -> None:
    with pytest.raises(Died):
        deploy(words, "word", {"champion": 1}, 0, die, actor="anna")
    assert words.deployment("word").champion == 1


def test_a_promotion_that_is_repeated_writes_the_row_of_the_one_that_died(
    words: Repository, url: str
) -> None:
    anna_dies_before_her_row(words)
    for _ in range(2):
        registry.promote(words, url, "word", 1, "boris", None)
    assert written(url) == [(1, "anna", 2, 1)]


def test_what_died_before_its_row_can_be_rolled_back(words: Repository, url: str) -> None:
    anna_dies_before_her_row(words)
    assert registry.rollback(words, url, "word", "boris", None).champion == 2
    assert written(url) == [(1, "anna", 2, 1), (2, "boris", 1, 2)]


def test_whoever_deploys_next_writes_the_row_of_the_one_that_died(
    words: Repository, url: str
) -> None:
    anna_dies_before_her_row(words)
    deploy(words, "word", {"champion": 2}, 1, partial(record_deployment, url), actor="boris")
    assert written(url) == [(1, "anna", 2, 1), (2, "boris", 1, 2)]


def test_what_died_before_it_served_has_no_row(
    words: Repository, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = repository.write_atomically

    def dies_at_the_deployment(path: Path, data: bytes) -> None:
        if path.name == DEPLOYMENT:
            raise Died
        write(path, data)

    record = partial(record_deployment, url)
    with monkeypatch.context() as deadly:
        deadly.setattr(repository, "write_atomically", dies_at_the_deployment)
        with pytest.raises(Died):
            deploy(words, "word", {"champion": 1}, 0, record, actor="anna")
    record_last(words, "word", record)
    assert written(url) == []
    deploy(words, "word", {"champion": 1}, 0, record, actor="boris")
    assert written(url) == [(1, "boris", 2, 1)]


def test_a_database_that_was_away_is_told_later(
    words: Repository, url: str, tmp_path: Path
) -> None:
    away = partial(record_deployment, f"sqlite:///{tmp_path / 'away.db'}")
    deploy(words, "word", {"champion": 1}, 0, away, actor="anna")
    registry.promote(words, url, "word", 2, "boris", None)
    assert written(url) == [(1, "anna", 2, 1), (2, "boris", 1, 2)]


def test_an_event_that_cannot_be_read_keeps_nobody_from_deploying(
    words: Repository, url: str
) -> None:
    anna_dies_before_her_row(words)
    (words.writable / "word" / EVENT).write_text("half of")
    registry.promote(words, url, "word", 2, "boris", None)
    assert written(url) == [(2, "boris", 1, 2)]
    with transaction(url) as connection:
        changes = registry.deployments(connection, "word")
    assert registry.has_served(changes, words.manifest("word", 1)), "the row after it says so"


@pytest.fixture
def heads(words: Repository, tmp_path: Path) -> Repository:
    """`word` with versions 3 to 6, whose one file says a, b, c and b again."""
    file = tmp_path / "word" / "head.txt"
    for says in "abcb":
        file.write_text(says)
        words.publish("word", tmp_path / "word", **FACTS)
    return words


def taken_back(words: Repository, url: str, *champions: int) -> set[int]:
    """Which versions' files nobody wants after these were promoted, one after the other."""
    for number in champions:
        registry.promote(words, url, "word", number, "boris", None)
    with transaction(url) as connection:
        changes = registry.deployments(connection, "word")
    found = registry.taken_back(words, "word", changes)
    files = {number: words.manifest("word", number).files for number in words.versions("word")}
    return {number for number, its in files.items() if its and its.items() <= found}


def test_what_was_rolled_back_is_taken_back_until_it_serves_again(
    heads: Repository, url: str
) -> None:
    assert taken_back(heads, url, 3, 4) == set()
    registry.rollback(heads, url, "word", "boris", None)
    assert taken_back(heads, url) == {4, 6}, "6 is byte for byte 4"
    assert taken_back(heads, url, 5) == {4, 6}, "5 says nothing of it"
    assert taken_back(heads, url, 6) == set(), "somebody wants it after all"


def test_whoever_goes_further_back_takes_back_all_between(heads: Repository, url: str) -> None:
    assert taken_back(heads, url, 3, 4, 5, 3) == {4, 5, 6}
    assert taken_back(heads, url, 4) == {5}


def test_what_both_versions_hold_is_not_taken_back(heads: Repository, url: str) -> None:
    assert taken_back(heads, url, 4, 6, 4) == set()


def test_deployments_of_versions_that_are_gone_are_no_ones(
    heads: Repository, url: str, tmp_path: Path
) -> None:
    """The models were wiped and the database kept: numbers begin again, moments do not."""
    assert taken_back(heads, url, 3, 4, 3) == {4, 6}
    shutil.rmtree(heads.writable)
    for says in "ddddd":
        (tmp_path / "word" / "head.txt").write_text(says)
        heads.publish("word", tmp_path / "word", **FACTS)
    manifest = heads.manifest("word", 4)
    with transaction(url) as connection:
        assert not registry.has_served(registry.deployments(connection, "word"), manifest)
    assert taken_back(heads, url) == set()
    assert taken_back(heads, url, 4) == set()
    with transaction(url) as connection:
        assert registry.has_served(registry.deployments(connection, "word"), manifest)
