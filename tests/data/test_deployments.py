"""govor/repository.py and govor/database.py: who deploys may die at any moment, and has a row."""

from __future__ import annotations

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
        assert registry.has_served(connection, "word", 1), "the row after it says so"
