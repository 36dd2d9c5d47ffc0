"""services/gateway/registry.py and govor/registry.py, on a small repository."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from govor import registry
from govor.config import Settings
from govor.database import migrate, transaction
from govor.errors import Conflict, Unavailable
from govor.repository import Repository, deploy, write_manifest
from govor.tables import deployment_event
from tests.gateway.conftest import Gateway

FACTS: dict[str, Any] = {
    "backend": "word",
    "languages": ["en"],
    "recipe": "tests",
    "licence": "Apache-2.0",
}
ACCURACY = "horoscope.frozen.accuracy"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The model `word` with a bundled version 1 that serves, a better 2 and a refused 3."""
    bundled = tmp_path / "home" / "models" / "word" / "1"
    bundled.mkdir(parents=True)
    (bundled / "word.txt").write_text("one")
    write_manifest(bundled, model="word", version=1, metrics={ACCURACY: 0.8}, **FACTS)
    made = Repository(tmp_path / "var" / "models", tmp_path / "home" / "models")
    for word, passed in (("two", True), ("three", False)):
        source = tmp_path / word
        source.mkdir()
        (source / "word.txt").write_text(word)
        gates = [{"name": "accuracy.en", "passed": passed, "reason": "so it is"}]
        metrics = {ACCURACY: 0.9 if passed else 0.3}
        made.publish("word", source, **FACTS, parent=1, job="4f1c", gates=gates, metrics=metrics)
    return made


@pytest.fixture
async def client(
    gateway: Gateway, repository: Repository, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    keys = tmp_path / "keys"
    keys.write_text("anna speak,admin key-of-anna\nboris speak key-of-boris\n")
    async with gateway(home=tmp_path / "home", keys_file=keys) as running:
        running.headers["authorization"] = "Bearer key-of-anna"
        yield running


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_what_there_is_and_what_serves(client: httpx.AsyncClient) -> None:
    [word] = (await client.get("/v1/registry")).json()["models"]
    assert word["model"] == "word"
    assert (word["champion"], word["generation"], word["since"]) == (1, 0, None)
    assert word["versions"] == [1, 2, 3]
    versions = (await client.get("/v1/registry/word/versions")).json()["versions"]
    states = [(one["version"], one["state"]) for one in versions]
    assert states == [(3, "rejected"), (2, "published"), (1, "champion")]
    assert versions[0]["gates"][0]["reason"] == "so it is"
    assert (versions[1]["parent"], versions[1]["job"]) == (1, "4f1c")
    assert versions[1]["metrics"] == {ACCURACY: 0.9}


async def test_promote_and_roll_back_are_one_write_each_with_a_name(
    client: httpx.AsyncClient, repository: Repository, tmp_path: Path
) -> None:
    asked = {"version": 2, "reason": "it knows mushrooms"}
    word = (await client.post("/v1/registry/word/promote", json=asked)).json()
    assert (word["champion"], word["generation"]) == (2, 1)
    assert word["since"] is not None
    again = await client.post("/v1/registry/word/promote", json=asked)
    assert again.json() == word, "nothing is written twice"
    word = (await client.post("/v1/registry/word/rollback")).json()
    assert (word["champion"], word["generation"]) == (1, 2)
    assert repository.deployment("word").champion == 1
    with transaction(f"sqlite:///{tmp_path / 'var' / 'govor.db'}") as connection:
        events = connection.execute(select(deployment_event)).all()
    written = [(row.actor, row.reason, row.after["champion"]) for row in events]
    assert written == [("anna", "it knows mushrooms", 2), ("anna", "rolled back", 1)]
    assert code(await client.post("/v1/registry/word/rollback")) == (409, "nothing_to_roll_back_to")


async def test_what_its_gate_refused_is_not_promoted(
    client: httpx.AsyncClient, repository: Repository
) -> None:
    refused = await client.post("/v1/registry/word/promote", json={"version": 3})
    assert code(refused) == (409, "version_rejected")
    assert repository.deployment("word").generation == 0


async def test_a_model_with_refused_versions_alone_hides_no_other(
    client: httpx.AsyncClient, repository: Repository, tmp_path: Path
) -> None:
    source = tmp_path / "refused"
    source.mkdir()
    (source / "word.txt").write_text("worse")
    facts = repository.manifest("word", 1).model_dump(include={"backend", "languages", "recipe"})
    gates = [{"name": "accuracy", "passed": False}]
    repository.publish("another", source, **facts, licence="Apache-2.0", gates=gates)
    [word] = (await client.get("/v1/registry")).json()["models"]
    assert word["model"] == "word"


async def test_what_is_not_there_is_named(client: httpx.AsyncClient) -> None:
    assert code(await client.get("/v1/registry/none/versions")) == (404, "model_not_found")
    assert code(await client.post("/v1/registry/none/rollback")) == (404, "model_not_found")
    for version in (9, 10**300):
        promoted = await client.post("/v1/registry/word/promote", json={"version": version})
        assert code(promoted) == (404, "version_not_found")
        compared = await client.get(f"/v1/registry/word/compare?versions=1,{version}")
        assert code(compared) == (404, "version_not_found")
    assert (await client.get("/v1/registry/..%2f..%2fetc/versions")).status_code == 404


async def test_versions_are_compared(client: httpx.AsyncClient) -> None:
    both = (await client.get("/v1/registry/word/compare?versions=1,2")).json()
    assert both["metrics"] == {ACCURACY: [0.8, 0.9]}
    assert both["files"] == ["word.txt"]
    for given in ("1", "1,x", "1,1"):
        answer = await client.get(f"/v1/registry/word/compare?versions={given}")
        assert code(answer) == (400, "invalid_request")


async def test_it_is_for_administrators(client: httpx.AsyncClient) -> None:
    client.headers["authorization"] = "Bearer key-of-boris"
    for method, path in (
        ("GET", ""),
        ("GET", "/word/versions"),
        ("GET", "/word/compare?versions=1,2"),
        ("POST", "/word/promote"),
        ("POST", "/word/rollback"),
    ):
        body = {"version": 2} if path.endswith("promote") else None
        answer = await client.request(method, f"/v1/registry{path}", json=body)
        assert code(answer) == (403, "scope_required")


def champions(*numbers: int) -> list[tuple[int | None, int | None]]:
    return list(itertools.pairwise(numbers))


@pytest.mark.parametrize(
    ("changes", "before"),
    [
        ([], []),
        (champions(1, 2, 3), [1, 2]),
        (champions(1, 2, 3, 2), [1]),  # rolled back once: the next one goes further back
        (champions(1, 2, 1, 3), [1]),
        (champions(1, 2, 1, 2), [1]),
        ([(1, 2), (3, 4)], [1, 2, 3]),  # the database was away when 3 was deployed
    ],
)
def test_the_champion_before(
    changes: list[tuple[int | None, int | None]], before: list[int], repository: Repository
) -> None:
    now = changes[-1][1] if changes else 1
    current = repository.deployment("word").model_copy(update={"champion": now})
    assert registry._champions_before(changes, current) == before


def test_without_its_database_nothing_is_rolled_back(
    repository: Repository, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'never migrated.db'}"
    deploy(repository, "word", {"champion": 2}, 0)
    with pytest.raises(Unavailable, match="database"):
        registry.rollback(repository, url, "word", "anna", None)
    assert repository.deployment("word").champion == 2


def test_a_version_that_is_gone_is_passed_over(repository: Repository, tmp_path: Path) -> None:
    settings = Settings(var=tmp_path / "var")
    migrate(settings.database)
    source = tmp_path / "four"
    source.mkdir()
    repository.publish("word", source, **FACTS)
    for version in (2, 4):
        registry.promote(repository, settings.database, "word", version, "anna", None)
    (repository.writable / "word" / "2" / "manifest.json").unlink()
    back = registry.rollback(repository, settings.database, "word", "anna", None)
    assert back.champion == 1
    with pytest.raises(Conflict):
        registry.rollback(repository, settings.database, "word", "anna", None)
