"""govor/repository.py"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from govor.errors import Conflict, NotFound
from govor.repository import Repository, VersionBroken, deploy, write_manifest

FACTS: dict[str, Any] = {
    "backend": "echo",
    "languages": ["en"],
    "recipe": "tests",
    "licence": "Apache-2.0",
}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "bundled" / "echo" / "1"
    folder.mkdir(parents=True)
    (folder / "word.txt").write_text("one")
    write_manifest(folder, model="echo", version=1, **FACTS)
    return Repository(tmp_path / "var", tmp_path / "bundled")


REFUSED = {"gates": [{"name": "accuracy", "passed": False}]}


def publish(repository: Repository, tmp_path: Path, word: str, **facts: Any) -> int:
    source = tmp_path / f"source-{word}"
    (source / "heads").mkdir(parents=True)
    (source / "word.txt").write_text(word)
    (source / "heads" / "x.json").write_text("{}")
    return repository.publish("echo", source, **FACTS, **facts).number


def test_the_highest_bundled_version_serves_when_nothing_is_deployed(
    repository: Repository, tmp_path: Path
) -> None:
    assert publish(repository, tmp_path, "two") == 2
    assert repository.versions("echo") == [1, 2]
    assert repository.deployment("echo").champion == 1
    assert repository.models() == ["echo"]


def test_publish_then_deploy_then_roll_back(repository: Repository, tmp_path: Path) -> None:
    number = publish(repository, tmp_path, "two")
    events: list[dict[str, Any]] = []
    deployed = deploy(repository, "echo", {"champion": number}, 0, events.append)
    assert deployed.generation == 1
    assert repository.deployment("echo") == deployed
    assert deploy(repository, "echo", {"champion": 1}, 1).champion == 1
    assert [event["after"]["champion"] for event in events] == [2]


def test_deploy_refuses_a_stale_generation_and_an_unknown_version(repository: Repository) -> None:
    deploy(repository, "echo", {"champion": 1}, 0)
    with pytest.raises(Conflict):
        deploy(repository, "echo", {"champion": 1}, 0)
    with pytest.raises(NotFound):
        deploy(repository, "echo", {"champion": 9}, 1)
    assert repository.deployment("echo").generation == 1


@pytest.mark.parametrize("number", [-1, 0, 9, 2**31, 10**300])
def test_a_version_that_is_not_there_is_named(repository: Repository, number: int) -> None:
    for look in (repository.open, repository.manifest):
        with pytest.raises(NotFound) as missing:
            look("echo", number)
        assert missing.value.code == "version_not_found"


def test_what_a_gate_refused_is_kept_and_never_deployed(
    repository: Repository, tmp_path: Path
) -> None:
    number = publish(repository, tmp_path, "worse", **REFUSED)
    assert repository.open("echo", number).manifest.rejected
    for change in ({"champion": number}, {"challenger": number}):
        with pytest.raises(Conflict) as refused:
            deploy(repository, "echo", change, 0)
        assert refused.value.code == "version_rejected"
    assert repository.deployment("echo").champion == 1
    passed = {"gates": [{"name": "accuracy", "passed": True}]}
    better = publish(repository, tmp_path, "better", **passed)
    assert deploy(repository, "echo", {"champion": better}, 0).champion == better


def test_without_a_deployment_and_bundled_versions_what_was_refused_does_not_serve(
    tmp_path: Path,
) -> None:
    repository = Repository(tmp_path / "var", tmp_path / "none")
    first = publish(repository, tmp_path, "one")
    publish(repository, tmp_path, "worse", **REFUSED)
    assert repository.deployment("echo").champion == first


def test_one_of_many_writers_wins(repository: Repository) -> None:
    def attempt(_: int) -> bool:
        try:
            deploy(repository, "echo", {"champion": 1}, 0)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


def test_versions_are_taken_once(repository: Repository, tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(lambda word: publish(repository, tmp_path, word), words))
    assert sorted(numbers) == list(range(2, 14))
    texts = {repository.open("echo", n).path("word.txt").read_text() for n in numbers}
    assert texts == set(words)


def test_a_changed_file_is_refused(repository: Repository) -> None:
    (repository.bundled / "echo" / "1" / "word.txt").write_text("evil")
    with pytest.raises(VersionBroken, match=r"word\.txt"):
        repository.open("echo", 1)


@pytest.mark.parametrize("name", ["../../secret.txt", "/etc/passwd.txt", "model.pkl", "ops.so"])
def test_files_outside_or_of_a_dangerous_kind_are_refused(
    repository: Repository, name: str
) -> None:
    file = repository.bundled / "echo" / "1" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["files"][name] = "0" * 64
    file.write_text(json.dumps(manifest))
    with pytest.raises(VersionBroken):
        repository.open("echo", 1)


def test_a_half_written_version_is_not_seen(repository: Repository) -> None:
    folder = repository.writable / "echo" / "7"
    folder.mkdir(parents=True)
    (folder / "word.txt").write_text("half")
    assert repository.versions("echo") == [1]
    with pytest.raises(NotFound):
        repository.open("echo", 7)


def test_a_failed_publish_leaves_nothing(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.pkl").write_bytes(b"")
    with pytest.raises(VersionBroken):
        repository.publish("echo", source, **FACTS)
    assert repository.versions("echo") == [1]
    assert not (repository.writable / "echo" / "2").exists()


def test_a_number_never_comes_back(repository: Repository, tmp_path: Path) -> None:
    folder = repository.writable / "echo"
    assert [publish(repository, tmp_path, word) for word in ("two", "three")] == [2, 3]
    shutil.rmtree(folder / "3")
    assert publish(repository, tmp_path, "four") == 4
    (folder / "7").mkdir()  # of one who died while it wrote
    shutil.rmtree(folder / "4")
    assert publish(repository, tmp_path, "eight") == 8
    assert repository.versions("echo") == [1, 2, 8]


def test_what_was_copied_is_on_the_disk_before_the_manifest_names_it(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    sync = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        sync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    publish(repository, tmp_path, "two")
    [manifest] = [at for at, name in enumerate(synced) if name.startswith(".manifest.json")]
    assert {"word.txt", "x.json", "heads", "2"} <= set(synced[:manifest])
    assert synced[manifest + 1 :] == ["2", "echo"]


def test_a_bundled_version_that_one_of_ours_hides_does_not_serve_by_itself(
    repository: Repository, tmp_path: Path
) -> None:
    gates = [{"name": "accuracy", "passed": False}]
    assert publish(repository, tmp_path, "worse", gates=gates) == 2
    update = repository.bundled / "echo" / "2"
    shutil.copytree(repository.bundled / "echo" / "1", update)
    manifest = json.loads((update / "manifest.json").read_text())
    (update / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
    assert repository.deployment("echo").champion == 1
    shutil.move(update, update.with_name("3"))
    assert repository.deployment("echo").champion == 3


def test_an_unknown_model_is_named(repository: Repository) -> None:
    with pytest.raises(NotFound, match="nope"):
        repository.deployment("nope")
