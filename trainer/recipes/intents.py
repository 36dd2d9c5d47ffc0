"""One retrain of the `nlu` model, whole: a pack's head on the champion's trunk.

Rows -> dataset version -> head -> evaluation beside the champion -> gate -> published version ->
champion. Seconds on one core; the trunk and the other packs' heads are copied bit for bit.

    python -m trainer.recipes.intents --domain parking

does it here and now, `POST /v1/trainings` through the queue.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from govor import registry
from govor.config import Settings
from govor.database import REVISION, insert_new, read_revision, record_deployment, transaction
from govor.domains import Pack, load_evaluation, load_pack
from govor.errors import Conflict, NotFound
from govor.repository import Dataset, Repository, Version, VersionBroken, deploy
from govor.tables import dataset_version, evaluation, gate_decision, model_version
from services.nlu.backends.heads import Head
from trainer import datasets, gates, heads
from trainer.context import Context, Task
from trainer.datasets import DatasetVersion, Labelled
from trainer.evaluation import Answers, answer, frozen, held_out, records
from trainer.gates import Check
from trainer.heads import Params, Reader, Trained, dataset_of

MODEL = "nlu"


@dataclass(frozen=True)
class Work:
    """What a retrain is made of: it stays the same when the champion changes under it."""

    task: Task
    params: Params
    settings: Settings
    repository: Repository
    pack: Pack
    dataset: DatasetVersion
    frozen: DatasetVersion | None

    @property
    def judged_on(self) -> DatasetVersion:
        return self.frozen or self.dataset


@dataclass(frozen=True)
class Candidate:
    """A head in its folder, what it answered, and the checks of its gate. `champion`: what the
    version that it is to follow answered, where the two can be compared."""

    folder: Path
    parent: Version
    learnt: dict[str, float]
    answers: Answers
    champion: Answers | None
    checks: list[Check]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def retrain(task: Task, context: Context, settings: Settings | None = None) -> dict[str, Any]:
    """The recipe's entry: trains, and serves the new head if it passes its gate.

    The result has `model`, `version`, `passed`, `deployed`, `generation`, `dataset_digest`,
    `metrics`, `champion_metrics` and `checks`. May be repeated after a death at any moment: the
    same job takes the same rows and publishes one version on a champion.
    """
    work = _prepare(task, context, settings or Settings())
    while True:
        generation = work.repository.deployment(MODEL).generation
        with tempfile.TemporaryDirectory(dir=context.folder) as place:
            candidate = _build(work, Path(place), context)
            context.progress("publish", done=0.9)
            context.commit()
            version = _publish(work, candidate)
        verdict = "passed its gate" if candidate.passed else "rejected"
        context.log(f"{MODEL} version {version.number}: {verdict}")
        try:
            serves = candidate.passed and _deploy(work, version, generation)
        except Conflict as conflict:
            if conflict.code != "deployment_changed":
                raise
            context.log("the champion changed meanwhile: once more, on the new one")
            continue
        _record(work, candidate, version, context)
        context.progress("done", done=1.0)
        return _result(work, candidate, version, serves)


def _prepare(task: Task, context: Context, settings: Settings) -> Work:
    """Reads the pack and its frozen set, and takes the rows: once a job, whatever is said later."""
    params = Params.model_validate(task.params)
    domain = task.domain or settings.domain
    folder = settings.domains_folder / domain
    if folder.parent != settings.domains_folder:
        raise NotFound(f"there is no domain {domain!r}", code="domain_not_found")
    pack = load_pack(folder)
    context.progress("data", done=0.0)
    judges = frozen(load_evaluation(folder, pack))
    pinned = context.folder / "dataset"
    digest = pinned.read_text() if pinned.is_file() else task.dataset
    name, lake = f"intents-{pack.name}", settings.lake_folder
    if digest:
        dataset = datasets.read(lake, name, digest)
        _check_fits(dataset, pack, judges)
    else:
        dataset = _collect(settings, pack, params, name, judges, context)
    pinned.write_text(dataset.digest)
    context.log(f"dataset {name} {dataset.digest[:12]}: {len(dataset.rows)} rows")
    return Work(
        task=task,
        params=params,
        settings=settings,
        repository=Repository(settings.repository_folder, settings.bundled_folder),
        pack=pack,
        dataset=dataset,
        frozen=datasets.write(lake, f"evaluation-{pack.name}", judges, []) if judges else None,
    )


def _check_fits(dataset: DatasetVersion, pack: Pack, judges: Sequence[Labelled]) -> None:
    """An earlier dataset was made for the pack and the frozen set of its day."""
    if strange := {row.intent for row in dataset.rows} - {None, *pack.intents}:
        raise ValueError(f"{pack.name} has no intents {sorted(map(str, strange))} any more")
    asked = {datasets.spelt(row.text) for row in judges}
    if count := datasets.without(dataset.rows, asked)[1]:
        raise ValueError(f"the frozen set of {pack.name} asks {count} rows of this dataset by now")


def _collect(
    settings: Settings,
    pack: Pack,
    params: Params,
    name: str,
    judges: Sequence[Labelled],
    context: Context,
) -> DatasetVersion:
    """The pack's rows and what people corrected, without what the frozen set asks."""
    own = datasets.pack_rows(pack, params.samples, params.seed)
    asked = {datasets.spelt(row.text) for row in judges}
    with _database(settings) as connection:
        found = datasets.corrected(connection, pack.name) if connection else []
    said = datasets.corrections(found, pack, own)
    rows, in_frozen = datasets.without([*own, *said.rows], asked)
    left_out = said.left_out | ({"in the frozen set": in_frozen} if in_frozen else {})
    sources = [
        {"name": f"pack {pack.name}", "digest": pack.digest, "rows": len(own)},
        {"name": "corrections", "feedback": said.feedback, "rows": len(said.rows)},
        {"name": "left out", "rows": sum(left_out.values()), "reasons": left_out},
    ]
    dataset = datasets.write(settings.lake_folder, name, rows, sources)
    with _database(settings) as connection:
        if connection:
            insert_new(connection, dataset_version, [dataset.record()])
    context.log(f"{len(own)} rows of the pack, {len(said.rows)} corrections, left out: {left_out}")
    return dataset


def _build(work: Work, folder: Path, context: Context) -> Candidate:
    """The champion's files with a new head, judged beside the champion."""
    parent = _parent(work)
    for name in parent.names():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(parent.path(name), folder / name)

    def told(fold: int, loss: float) -> None:
        folds = work.params.folds
        context.progress(
            "train", done=0.1 + 0.6 * fold / folds, epoch=fold, epochs=folds, loss=round(loss, 4)
        )
        context.log(f"fold {fold} of {folds}: held-out loss {loss:.4f}")

    context.progress("train", done=0.1, epoch=0, epochs=work.params.folds)
    trained = heads.learn(folder, work.pack, work.dataset.rows, work.params, told)
    context.progress("evaluate", done=0.8)
    answers, champion, checks = _judge(work, folder, parent, trained)
    for check in checks:
        context.log(f"{'passed' if check.passed else 'FAILED'} {check.name}: {check.reason}")
    return Candidate(folder, parent, trained.metrics, answers, champion, checks)


def _judge(
    work: Work, folder: Path, parent: Version, trained: Trained
) -> tuple[Answers, Answers | None, list[Check]]:
    """What the new head answers, what the parent's does where the two may be compared, the gate."""
    name, languages = work.pack.name, work.pack.languages
    size = sum(file.stat().st_size for file in (folder / "heads").glob(f"{name}.*"))
    if work.frozen is None:
        answers = held_out(trained, languages)
        note = gates.not_frozen(name, len(answers.rows), work.params.folds)
        checks = gates.decide(answers, None, languages, size, gates.HELD_OUT)
        return answers, None, [note, *checks]
    reader, rows = Reader(folder), work.frozen.rows
    answers = answer(Head.load(folder / "heads", name), reader, rows)
    champion = None
    if f"heads/{name}.json" in parent.manifest.files:
        champion = answer(Head.load(parent.folder / "heads", name), reader, rows)
    return answers, champion, gates.decide(answers, champion, languages, size)


def _parent(work: Work) -> Version:
    """The champion; the version before it when the champion is this job's own already, because a
    worker died between the deployment and its report."""
    number = work.repository.deployment(MODEL).champion
    assert number is not None
    champion = work.repository.open(MODEL, number)
    if champion.manifest.job == work.task.id and champion.manifest.parent is not None:
        return work.repository.open(MODEL, champion.manifest.parent)
    return champion


def _publish(work: Work, candidate: Candidate) -> Version:
    """The version of this job on this champion, which a start before this one may have written."""
    for number in work.repository.versions(MODEL):
        with contextlib.suppress(VersionBroken):
            manifest = work.repository.manifest(MODEL, number)
            if (manifest.job, manifest.parent) == (work.task.id, candidate.parent.number):
                return work.repository.open(MODEL, number)
    return work.repository.publish(MODEL, candidate.folder, **_manifest(work, candidate))


def _manifest(work: Work, candidate: Candidate) -> dict[str, Any]:
    """The parent's own manifest, with what the new head changes in it."""
    parent, pack = candidate.parent.manifest, work.pack
    dataset = Dataset(
        name=work.dataset.name,
        source=f"lake: datasets/{work.dataset.name}; the pack, and corrections with consent",
        licence="Apache-2.0; corrections are their speakers'",
        digest=work.dataset.digest,
    )
    mine = (dataset_of(pack), dataset)
    numbers = {f"{pack.name}.{key}": value for key, value in candidate.learnt.items()}
    measured = "frozen" if work.frozen else "held_out"
    for language in (None, *pack.languages):
        for key, value in candidate.answers.metrics(language).items():
            name = ".".join(filter(None, (pack.name, measured, language, key)))
            numbers[name] = value
    return {
        "backend": parent.backend,
        "languages": sorted({*parent.languages, *pack.languages}),
        "description": parent.description,
        "recipe": "trainer/recipes/intents.py",
        "params": parent.params | {f"heads.{pack.name}": work.params.model_dump()},
        "fields": parent.fields,
        "code_revision": _code_revision(work.settings.home),
        "datasets": [
            *(d for d in parent.datasets if d.name not in {one.name for one in mine}),
            *mine,
        ],
        "metrics": parent.metrics | numbers,
        "gates": [asdict(check) for check in candidate.checks],
        "parent": candidate.parent.number,
        "job": work.task.id,
        "licence": parent.licence,
    }


def _code_revision(home: Path) -> str | None:
    """The commit of a checkout; None in an image, which has no git."""
    command = ["git", "-C", str(home), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def _deploy(work: Work, version: Version, generation: int) -> bool:
    """Makes it the champion, unless it was already; whether it serves now.

    Raises `Conflict` (`deployment_changed`) when the champion changed after `generation`.
    """
    url = work.settings.database
    if work.repository.deployment(MODEL).champion == version.number:
        return True
    with _database(work.settings) as connection:
        if connection is not None and registry.has_served(connection, MODEL, version.number):
            return False  # deployed by an earlier start of this job, and rolled back since
    reason = f"job {work.task.id}: gate passed"
    record = partial(record_deployment, url, actor=work.task.requested_by, reason=reason)
    deploy(work.repository, MODEL, {"champion": version.number}, generation, record)
    return True


def _record(work: Work, candidate: Candidate, version: Version, context: Context) -> None:
    """Writes the rows that explain the version; a repeat adds none."""
    job, now = work.task.id, datetime.now(UTC)
    version_row = {
        "model": MODEL,
        "version": version.number,
        "state": "published" if candidate.passed else "rejected",
        "recipe": work.task.recipe,
        "domain": work.pack.name,
        "parent": candidate.parent.number,
        "job_id": job,
        "dataset_digest": work.dataset.digest,
        "metrics": candidate.answers.metrics(),
        "created_at": now,
    }
    decision = {
        "id": uuid.uuid5(uuid.NAMESPACE_OID, f"{job} {version.number}").hex,
        "at": now,
        "job_id": job,
        "model": MODEL,
        "version": version.number,
        "champion": candidate.parent.number,
        "passed": candidate.passed,
        "checks": [asdict(check) for check in candidate.checks],
    }
    with _database(work.settings) as connection:
        if connection is None:
            context.log("no database yet: nothing recorded")
            return
        if work.frozen:
            insert_new(connection, dataset_version, [work.frozen.record()])
        insert_new(connection, model_version, [version_row])
        insert_new(connection, gate_decision, [decision])
        for number, answers in (
            (version.number, candidate.answers),
            (candidate.parent.number, candidate.champion),
        ):
            if answers is not None:
                facts = {
                    "model": MODEL,
                    "version": number,
                    "domain": work.pack.name,
                    "dataset_digest": work.judged_on.digest,
                    "job_id": job,
                }
                insert_new(connection, evaluation, records(answers, work.pack.languages, facts))


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[Connection | None]:
    """A transaction; None where nobody has made the tables (a command before the first start)."""
    with transaction(settings.database) as connection:
        yield connection if read_revision(connection) == REVISION else None


def _result(work: Work, candidate: Candidate, version: Version, serves: bool) -> dict[str, Any]:
    return {
        "model": MODEL,
        "version": version.number,
        "passed": candidate.passed,
        "deployed": serves,
        "generation": work.repository.deployment(MODEL).generation,
        "dataset_digest": work.dataset.digest,
        "metrics": candidate.answers.metrics(),
        "champion_metrics": candidate.champion.metrics() if candidate.champion else None,
        "checks": [asdict(check) for check in candidate.checks],
    }


@dataclass(frozen=True)
class Terminal:
    """The context of a command: what it does is its own, and is said on stderr."""

    folder: Path

    def progress(self, step: str, **_: Any) -> None:
        pass

    def log(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def commit(self) -> None:
        pass


def main(arguments: Sequence[str] | None = None) -> int:
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domain", required=True, help="the pack that gets a head")
    parser.add_argument("--domains", type=Path, default=settings.domains_folder)
    options = parser.parse_args(arguments)
    settings = settings.model_copy(update={"domains": options.domains})
    task = Task(id=uuid.uuid4().hex, recipe="intents", domain=options.domain)
    with tempfile.TemporaryDirectory() as folder:
        result = retrain(task, Terminal(Path(folder)), settings)
    verdict = "serves" if result["deployed"] else "was rejected by its gate"
    print(f"nlu version {result['version']} {verdict}; {options.domain}:")
    for key, value in result["metrics"].items():
        print(f"  {key:<22} {value:.4f}")
    return 0 if result["deployed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
