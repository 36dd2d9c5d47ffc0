"""trainer/recipes/intents.py: a retrain from its rows to a version that serves, or does not."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Table, insert, select

from govor import registry
from govor.config import Settings
from govor.database import migrate, transaction
from govor.domains import PackError, load_pack
from govor.errors import Conflict, NotFound
from govor.repository import Repository, Version, deploy
from govor.tables import (
    conversation,
    dataset_version,
    deployment_event,
    evaluation,
    feedback,
    gate_decision,
    model_version,
    turn,
)
from services.nlu.backends.ngram import Ngram
from tests.databases import Postgres, postgres
from tests.packs.pizza import write
from tests.trainer.contexts import Notes
from trainer import datasets, heads, outcome
from trainer.context import NotOurs, Task
from trainer.exporter import Jobs
from trainer.recipes import intents

pytest.importorskip("sklearn", reason="the trainer's extra is not installed")

HOME = Path(__file__).resolve().parents[2]
QUICK = {"samples": 20, "folds": 2}
STRANGE = "spill the celestial tea"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    given = Settings(var=tmp_path / "var", domain="horoscope")
    migrate(given.database)
    return given


@pytest.fixture
def pizza(settings: Settings, tmp_path: Path) -> Settings:
    """A pack in one language without a frozen set: a retrain takes a second."""
    write(tmp_path / "domains")
    return settings.model_copy(update={"domains": tmp_path / "domains", "domain": "pizza"})


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    (tmp_path / "job").mkdir()
    return Notes(tmp_path / "job")


def task(name: str = "job-1", **more: Any) -> Task:
    return Task(**({"id": name, "recipe": "intents", "requested_by": "anna"} | more))


def repository(settings: Settings) -> Repository:
    return Repository(settings.repository_folder, settings.bundled_folder)


def rows(settings: Settings, table: Table) -> list[dict[str, Any]]:
    with transaction(settings.database) as connection:
        return [dict(row._mapping) for row in connection.execute(select(table))]


def correct(
    settings: Settings, said: Sequence[tuple[str, str]], consent: str = "train", n: str = ""
) -> None:
    """Conversations in which a person said what should have been understood."""
    now = datetime.now(UTC)
    with transaction(settings.database) as connection:
        for number, (text, intent) in enumerate(said):
            key = f"{consent}{n}{number}"
            about = {"domain": settings.domain, "consent": consent, "version": 1}
            times = {"created_at": now, "updated_at": now}
            connection.execute(insert(conversation), {"id": key, **about, **times})
            spoken = {"language": "en", "utterance": text, "steps": [], "degraded": []}
            connection.execute(
                insert(turn), {"id": key, "conversation_id": key, "at": now, **spoken}
            )
            ids = {"id": key, "turn_id": key, "conversation_id": key, "at": now}
            connection.execute(insert(feedback), {**ids, "rating": -1, "corrected_intent": intent})


async def understood(version: Version, domain: str, text: str) -> str | None:
    served = Ngram(version)
    try:
        [parsed] = await served.understand([text], domain)
    finally:
        served.close()
    return None if parsed.out_of_scope else parsed.ranking[0][0]


@pytest.mark.parametrize("domain", ["../domains/pizza", "pizza/../pizza", "/", ".", "..", "none"])
def test_a_domain_is_a_folder_of_the_packs_and_no_other(
    pizza: Settings, notes: Notes, domain: str
) -> None:
    with pytest.raises((NotFound, PackError)):
        intents.retrain(task(domain=domain, params=QUICK), notes, pizza)
    assert notes.steps == []


def test_a_retrain_ends_as_the_champion_with_all_of_its_story(
    settings: Settings, notes: Notes
) -> None:
    result = intents.retrain(task(), notes, settings)
    assert json.loads(json.dumps(result)) == result
    assert (result["version"], result["passed"], result["deployed"]) == (2, True, True)
    assert result["generation"] == 1
    both = repository(settings)
    version, champion = both.open("nlu", 2), both.open("nlu", 1)
    assert both.deployment("nlu").champion == 2
    # The same rows and seed as the bundled head's: the same bytes, and every other file too.
    assert version.manifest.files == champion.manifest.files
    manifest = version.manifest
    assert (manifest.parent, manifest.job, manifest.rejected) == (1, "job-1", False)
    assert manifest.recipe == "trainer/recipes/intents.py"
    assert manifest.params["heads.horoscope"]["seed"] == 1
    digests = {source.name: source.digest for source in manifest.datasets}
    assert digests["intents-horoscope"] == result["dataset_digest"]
    assert digests["pack horoscope"] == load_pack(HOME / "domains" / "horoscope").digest
    assert manifest.metrics["horoscope.frozen.en.accuracy"] > 0.8
    assert result["metrics"] == result["champion_metrics"]
    _assert_the_tables_tell_it(settings, result)
    epochs = [step["epoch"] for step in notes.steps if step["step"] == "train"]
    assert epochs == [0, 1, 2, 3, 4]
    assert all(step["loss"] > 0 for step in notes.steps if step.get("epoch"))
    done = [step["done"] for step in notes.steps]
    assert done == sorted(done)
    assert done[-1] == 1


def _assert_the_tables_tell_it(settings: Settings, result: dict[str, Any]) -> None:
    [version] = rows(settings, model_version)
    assert (version["state"], version["parent"], version["domain"]) == ("published", 1, "horoscope")
    assert version["metrics"] == result["metrics"]
    kept = {row["name"]: row for row in rows(settings, dataset_version)}
    assert set(kept) == {"intents-horoscope", "evaluation-horoscope"}
    assert kept["intents-horoscope"]["digest"] == result["dataset_digest"]
    assert kept["intents-horoscope"]["sources"][0]["name"] == "pack horoscope"
    [decision] = rows(settings, gate_decision)
    assert (decision["passed"], decision["champion"]) == (True, 1)
    assert decision["checks"] == result["checks"]
    measured = {(row["version"], row["language"]) for row in rows(settings, evaluation)}
    assert measured == {(number, name) for number in (1, 2) for name in ("en", "ru", None)}
    judged = {row["dataset_digest"] for row in rows(settings, evaluation)}
    assert judged == {kept["evaluation-horoscope"]["digest"]}
    [event] = rows(settings, deployment_event)
    assert (event["actor"], event["reason"]) == ("anna", "job job-1: gate passed")


async def test_what_a_person_corrects_is_understood_afterwards(
    settings: Settings, notes: Notes
) -> None:
    both = repository(settings)
    before = await understood(both.open("nlu", 1), "horoscope", STRANGE)
    assert before != "horoscope"
    correct(settings, [(STRANGE, "horoscope")])
    result = intents.retrain(task(), notes, settings)
    assert result["deployed"]
    assert await understood(both.open("nlu", 2), "horoscope", STRANGE) == "horoscope"


def test_poisoned_corrections_end_as_a_rejected_version_that_never_serves(
    settings: Settings, notes: Notes
) -> None:
    pack = load_pack(HOME / "domains" / "horoscope")
    drawn = [row for row in datasets.pack_rows(pack, 60, 1) if row.intent]
    names = sorted(pack.intents)
    rng = random.Random(1)
    correct(settings, [(f"{row.text} um", rng.choice(names)) for row in drawn])
    result = intents.retrain(task(params={"folds": 2}), notes, settings)
    _assert_rejected(settings, result)
    failed = [check["name"] for check in result["checks"] if not check["passed"]]
    assert "accuracy.en" in failed


def test_corrections_do_not_judge_themselves(pizza: Settings, notes: Notes) -> None:
    """Without a frozen set: more wrong corrections than the pack has sentences, of one mind."""
    pack = load_pack(pizza.domains_folder / "pizza")
    names = sorted(pack.intents)
    wrong = dict(zip(names, [*names[1:], names[0]], strict=True))
    drawn = [row for row in datasets.pack_rows(pack, 20, 1) if row.intent]
    ends = ("um", "er", "uh", "now", "then")
    correct(
        pizza, [(f"{row.text} {end}", wrong[row.intent or ""]) for row in drawn for end in ends]
    )
    _assert_rejected(pizza, intents.retrain(task(params=QUICK), notes, pizza))


def test_a_head_that_hardly_learnt_is_rejected(settings: Settings, notes: Notes) -> None:
    params = {"c": 1e-6, "folds": 2}
    _assert_rejected(settings, intents.retrain(task(params=params), notes, settings))


def _assert_rejected(settings: Settings, result: dict[str, Any]) -> None:
    assert (result["passed"], result["deployed"], result["generation"]) == (False, False, 0)
    both = repository(settings)
    assert both.open("nlu", 2).manifest.rejected
    assert both.deployment("nlu").champion == 1
    with pytest.raises(Conflict, match="did not pass its gate"):
        deploy(both, "nlu", {"champion": 2}, 0)
    [version] = rows(settings, model_version)
    assert version["state"] == "rejected"
    [decision] = rows(settings, gate_decision)
    assert not decision["passed"]
    assert rows(settings, deployment_event) == []


def test_the_same_rows_and_seed_are_the_same_bytes_in_any_process(
    pizza: Settings, tmp_path: Path
) -> None:
    """Hashes of strings differ between processes: no order may hang on them."""
    code = (
        "import sys; from pathlib import Path; from govor.config import Settings\n"
        "from tests.trainer.contexts import Notes; from trainer.context import Task\n"
        "from trainer.recipes.intents import retrain\n"
        "var = Path(sys.argv[1]); (var / 'job').mkdir(parents=True)\n"
        "retrain(Task('j', 'intents', params={'folds': 2}), Notes(var / 'job'), Settings())\n"
    )
    made = []
    for seed in ("1", "2"):
        var = tmp_path / seed
        environment = {
            "PYTHONHASHSEED": seed,
            "GOVOR_VAR": str(var),
            "GOVOR_DOMAINS": str(pizza.domains),
            "GOVOR_DOMAIN": "pizza",
        }
        command = [sys.executable, "-c", code, str(var)]
        subprocess.run(command, cwd=HOME, env=os.environ | environment, check=True)
        manifest = Repository(var / "models", pizza.bundled_folder).manifest("nlu", 2)
        made.append((manifest.files, [source.digest for source in manifest.datasets]))
    assert made[0] == made[1]


def test_a_pack_without_a_frozen_set_is_told_so(pizza: Settings, notes: Notes) -> None:
    result = intents.retrain(task(params=QUICK), notes, pizza)
    assert result["deployed"]
    assert result["champion_metrics"] is None
    assert "has no evaluation/" in result["checks"][0]["reason"]
    version = repository(pizza).open("nlu", 2)
    bundled = repository(pizza).open("nlu", 1).manifest.files
    assert bundled.items() < version.manifest.files.items()
    Ngram(version).close()


def test_what_a_pack_says_of_itself_is_held_to_no_objective(pizza: Settings, notes: Notes) -> None:
    """Figures of held-out templates are lower than a frozen set's: no alert compares them."""
    intents.retrain(task(params=QUICK), notes, pizza)
    registry = CollectorRegistry()
    registry.register(Jobs(pizza))
    quality = [metric for metric in registry.collect() if metric.name == "champion_quality"]
    names = {sample.labels["metric"] for metric in quality for sample in metric.samples}
    assert "held_out_accuracy" in names
    assert all(name.startswith("held_out_") for name in names)


def test_an_earlier_dataset_may_be_named(pizza: Settings, notes: Notes, tmp_path: Path) -> None:
    first = intents.retrain(task(params=QUICK), notes, pizza)
    correct(pizza, [("flatbread for me", "order")])
    (tmp_path / "job" / "dataset").write_text("")  # as a power cut may leave it
    digest = first["dataset_digest"]
    second = intents.retrain(task("job-2", params=QUICK, dataset=digest), notes, pizza)
    assert second["dataset_digest"] == digest
    head = "heads/pizza.safetensors"
    both = repository(pizza)
    assert both.manifest("nlu", 3).files[head] == both.manifest("nlu", 2).files[head]
    (tmp_path / "job" / "dataset").unlink()
    with pytest.raises(NotFound, match="no version"):
        intents.retrain(task("job-3", dataset="0" * 64), notes, pizza)


def test_a_dataset_that_the_frozen_set_asks_by_now_is_refused(
    pizza: Settings, notes: Notes
) -> None:
    pack = load_pack(pizza.domains_folder / "pizza")
    row = datasets.Labelled("feed me", "order", "feed me", "en")
    dataset = datasets.write(pizza.lake_folder, "intents-pizza", [row], [])
    asks = {"intents": {name: ["feed me"] for name in pack.intents}, "out_of_scope": ["moon"]}
    freeze(pizza, asks)
    with pytest.raises(ValueError, match="asks 1 rows of this dataset"):
        intents.retrain(task(dataset=dataset.digest), notes, pizza)


def freeze(settings: Settings, asks: dict[str, Any]) -> None:
    """Gives the pack a frozen set."""
    folder = settings.domains_folder / settings.domain / "evaluation"
    folder.mkdir()
    (folder / "en.yaml").write_text(json.dumps(asks))


def test_what_the_frozen_set_asks_is_not_learnt_from_the_background_either(
    pizza: Settings, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = repository(pizza).open("nlu", 1).folder
    sentences = heads.background(bundled, ["en"])
    pack = load_pack(pizza.domains_folder / "pizza")
    single = heads.single_words(sentences, datasets.pack_rows(pack, 20, 1))
    asked = [sentences[0].upper(), sentences[7], single[0], single[9]]
    freeze(
        pizza, {"intents": {name: [f"um {name}"] for name in pack.intents}, "out_of_scope": asked}
    )
    train, learnt = heads.train, set()

    def seen(rows: Any, others: Sequence[str], *more: Any) -> Any:
        learnt.update(datasets.spelt(text) for text in others)
        return train(rows, others, *more)

    monkeypatch.setattr(heads, "train", seen)
    intents.retrain(task(params=QUICK), notes, pizza)
    spelt = {datasets.spelt(text) for text in (*sentences, *single)}
    assert spelt - learnt == {datasets.spelt(text) for text in asked}


def test_unknown_params_are_refused(pizza: Settings, notes: Notes) -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        intents.retrain(task(params={"learning_rate": 1}), notes, pizza)


def test_a_job_that_is_not_ours_any_more_publishes_nothing(pizza: Settings, notes: Notes) -> None:
    notes.ours = False
    with pytest.raises(NotOurs):
        intents.retrain(task(params=QUICK), notes, pizza)
    assert repository(pizza).versions("nlu") == [1]


def test_a_champion_that_changes_meanwhile_is_built_upon(
    pizza: Settings, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn = heads.learn

    def interrupted(*given: Any) -> Any:
        if not between:
            with monkeypatch.context() as undisturbed:
                undisturbed.setattr(heads, "learn", learn)
                between.append(intents.retrain(task("other", params=QUICK), notes, pizza))
        return learn(*given)

    between: list[dict[str, Any]] = []
    monkeypatch.setattr(heads, "learn", interrupted)
    result = intents.retrain(task(params=QUICK), notes, pizza)
    both = repository(pizza)
    assert both.manifest("nlu", result["version"]).parent == between[0]["version"]
    assert both.deployment("nlu").champion == result["version"]
    assert result["generation"] == 2


class Died(BaseException):
    """What a killed worker leaves: nothing after this line ran."""


@pytest.mark.parametrize("before", ["make_champion", "record_deployment", "record"])
def test_a_job_that_died_half_way_ends_with_one_version(
    before: str,
    pizza: Settings,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Died

    with monkeypatch.context() as deadly:
        deadly.setattr(outcome, before, die)
        with pytest.raises(Died):
            intents.retrain(task(params=QUICK), notes, pizza)
    correct(pizza, [("flatbread for me", "order")])  # said since: it is for the next job
    result = intents.retrain(task(params=QUICK), notes, pizza)
    assert (result["version"], result["deployed"], result["generation"]) == (2, True, 1)
    assert repository(pizza).versions("nlu") == [1, 2]
    assert len(rows(pizza, model_version)) == 1
    [event] = rows(pizza, deployment_event)
    assert (event["actor"], event["reason"]) == ("anna", "job job-1: gate passed")
    _assert_a_rollback_stays(pizza, notes)


def test_a_repeated_job_does_not_undo_a_rollback(pizza: Settings, notes: Notes) -> None:
    intents.retrain(task(params=QUICK), notes, pizza)
    _assert_a_rollback_stays(pizza, notes)


def test_a_rollback_comes_before_the_job_that_died_is_repeated(
    pizza: Settings, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise Died

    with monkeypatch.context() as deadly:
        deadly.setattr(outcome, "record_deployment", die)
        with pytest.raises(Died):
            intents.retrain(task(params=QUICK), notes, pizza)
    assert rows(pizza, deployment_event) == []
    _assert_a_rollback_stays(pizza, notes)
    events = [(row["generation"], row["actor"]) for row in rows(pizza, deployment_event)]
    assert events == [(1, "anna"), (2, "boris")]


def _assert_a_rollback_stays(settings: Settings, notes: Notes) -> None:
    registry.rollback(repository(settings), settings.database, "nlu", "boris", None)
    result = intents.retrain(task(params=QUICK), notes, settings)
    assert (result["version"], result["passed"], result["deployed"]) == (2, True, False)
    assert repository(settings).deployment("nlu").champion == 1


def retrained(settings: Settings, notes: Notes, name: str) -> dict[str, Any]:
    """A job of its own: the rows are taken anew."""
    (notes.folder / "dataset").unlink(missing_ok=True)
    return intents.retrain(task(name, params=QUICK), notes, settings)


def roll_back(settings: Settings) -> int | None:
    given = (repository(settings), settings.database, "nlu", "boris", "it misunderstands")
    return registry.rollback(*given).champion


def test_a_rollback_outlasts_the_next_retrain_and_a_promotion_ends_it(
    pizza: Settings, notes: Notes
) -> None:
    retrained(pizza, notes, "job-1")
    assert roll_back(pizza) == 1
    held = retrained(pizza, notes, "nightly")
    assert (held["version"], held["passed"], held["deployed"]) == (3, True, False)
    assert "rolled back" in held["held_back"]
    assert held["held_back"] in notes.lines
    both = repository(pizza)
    assert both.deployment("nlu").champion == 1
    assert [row["state"] for row in rows(pizza, model_version)] == ["published"] * 2
    promoted = registry.promote(both, pizza.database, "nlu", 3, "boris", None)
    assert promoted.champion == 3
    assert retrained(pizza, notes, "the night after")["deployed"]


def test_a_rollback_outlasts_the_retrain_of_another_pack(pizza: Settings, notes: Notes) -> None:
    retrained(pizza, notes, "job-1")
    assert roll_back(pizza) == 1
    shutil.copytree(pizza.domains_folder / "pizza", pizza.domains_folder / "pasta")
    file = pizza.domains_folder / "pasta" / "domain.yaml"
    file.write_text(file.read_text().replace("name: pizza", "name: pasta"))
    other = pizza.model_copy(update={"domain": "pasta"})
    assert retrained(other, notes, "job-2")["deployed"]
    assert not retrained(pizza, notes, "nightly")["deployed"]
    assert repository(pizza).deployment("nlu").champion == 3


def test_other_rows_than_those_that_were_rolled_back_are_served(
    pizza: Settings, notes: Notes
) -> None:
    retrained(pizza, notes, "job-1")
    roll_back(pizza)
    correct(pizza, [("flatbread for me", "order")])
    result = retrained(pizza, notes, "nightly")
    assert (result["deployed"], result["held_back"]) == (True, None)


def test_models_that_were_wiped_leave_nothing_that_holds_their_followers_back(
    pizza: Settings, notes: Notes
) -> None:
    retrained(pizza, notes, "job-1")
    roll_back(pizza)
    shutil.rmtree(pizza.repository_folder)
    result = retrained(pizza, notes, "job-2")
    assert (result["version"], result["deployed"], result["held_back"]) == (2, True, None)


def test_what_was_left_half_written_is_removed(pizza: Settings, notes: Notes) -> None:
    models = pizza.repository_folder / "nlu"
    for name in ("2", "3", "4"):
        (models / name).mkdir(parents=True)
        (models / name / "trunk.onnx").write_bytes(b"half of")
    (models / "4" / "manifest.json").write_text("{}")  # whole, if not well
    long_ago = time.time() - 2 * outcome.LEFT_SECONDS
    for name in ("2", "4"):
        os.utime(models / name, (long_ago, long_ago))
    result = intents.retrain(task(params=QUICK), notes, pizza)
    assert result["version"] == 5
    assert not (models / "2").exists()
    assert (models / "3").exists(), "somebody may be at it"
    assert (models / "4").exists()


@dataclass
class Janitor(Notes):
    """Starts the database as soon as somebody says that it is waited for."""

    server: Postgres | None = None

    def log(self, line: str) -> None:
        super().log(line)
        if line.startswith("waits for the database"):
            assert self.server is not None
            self.server.start()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (datasets, "corrected"),
        (registry, "deployments"),
        (outcome, "record_deployment"),
        (outcome, "insert_new"),
    ],
)
def test_a_database_that_stops_is_waited_for(
    module: Any, name: str, pizza: Settings, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = getattr(module, name)

    def stops(*given: Any, **more: Any) -> Any:
        monkeypatch.setattr(module, name, done)
        server.stop()
        return done(*given, **more)

    with postgres() as server:
        settings = pizza.model_copy(update={"database_url": server.url})
        migrate(settings.database)
        monkeypatch.setattr(module, name, stops)
        context = Janitor(notes.folder, server=server)
        result = intents.retrain(task(params=QUICK), context, settings)
        assert (result["version"], result["deployed"]) == (2, True)
        waits = [line for line in context.lines if line.startswith("waits for the database")]
        assert len(waits) == 1
        for table in (dataset_version, model_version, gate_decision, deployment_event):
            assert len(rows(settings, table)) == 1
        assert len(rows(settings, evaluation)) == 2
