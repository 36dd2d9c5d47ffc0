"""What a retrain of the `nlu` model leaves: a version, the champion, rows that explain both.

Each step may be repeated: a job that died and starts again finds what it has done. A database that
is away is waited for: until the job is cancelled, or its time is up.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.engine import Connection

from govor import registry
from govor.config import Settings
from govor.database import REVISION, insert_new, read_revision, record_deployment, transaction
from govor.domains import Pack
from govor.repository import (
    MANIFEST,
    Dataset,
    Repository,
    Version,
    VersionBroken,
    deploy,
    record_last,
)
from govor.tables import dataset_version, evaluation, gate_decision, model_version
from trainer.context import Context, Task
from trainer.datasets import DatasetVersion
from trainer.evaluation import HELD_OUT, Answers, records
from trainer.execution import AWAY
from trainer.gates import Check
from trainer.heads import Params, dataset_of

T = TypeVar("T")
MODEL = "nlu"
WAIT_SECONDS = 1.0
LEFT_SECONDS = 86_400.0  # no worker takes so long to publish


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
    asked: Collection[tuple[str, ...]]
    """What the frozen set asks, as `datasets.spelt`: it is not learnt."""

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


def parent(work: Work) -> Version:
    """The champion; the version before it when the champion is this job's own already, because a
    worker died between the deployment and its report."""
    number = work.repository.deployment(MODEL).champion
    assert number is not None
    champion = work.repository.open(MODEL, number)
    if champion.manifest.job == work.task.id and champion.manifest.parent is not None:
        return work.repository.open(MODEL, champion.manifest.parent)
    return champion


def publish(work: Work, candidate: Candidate) -> Version:
    """The version of this job on this champion, which a start before this one may have written."""
    for number in work.repository.versions(MODEL):
        with contextlib.suppress(VersionBroken):
            manifest = work.repository.manifest(MODEL, number)
            if (manifest.job, manifest.parent) == (work.task.id, candidate.parent.number):
                return work.repository.open(MODEL, number)
    _sweep(work.repository.writable / MODEL)
    return work.repository.publish(MODEL, candidate.folder, **_manifest(work, candidate))


def _sweep(folder: Path) -> None:
    """Removes what workers that died left half-written: nobody reads it, nobody goes on with it."""
    for entry in folder.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            old = time.time() - entry.stat().st_mtime > LEFT_SECONDS
            if old and entry.name.isdecimal() and not (entry / MANIFEST).exists():
                shutil.rmtree(entry)


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


def make_champion(work: Work, version: Version, generation: int, context: Context) -> str | None:
    """Makes it the champion, unless it was already; why it is held back, None when it serves now.

    Raises `Conflict` (`deployment_changed`) when the champion changed after `generation`.
    """
    record = partial(record_deployment, work.settings.database)
    record_last(work.repository, MODEL, record)  # an earlier start may have died before it
    if work.repository.deployment(MODEL).champion == version.number:
        return None
    if (why := _held_back(work, version, context)) is not None:
        return why
    deploy(
        work.repository,
        MODEL,
        {"champion": version.number},
        generation,
        record,
        actor=work.task.requested_by,
        reason=f"job {work.task.id}: gate passed",
    )
    return None


def _held_back(work: Work, version: Version, context: Context) -> str | None:
    """Why a version is not deployed whatever its gate says: somebody did not want what is new in
    it, and a job does not know better."""
    changes = in_database(
        work.settings, context, lambda connection: registry.deployments(connection, MODEL)
    )
    name, manifest = f"{MODEL} version {version.number}", version.manifest
    if not changes:
        return None
    if registry.has_served(changes, manifest):
        return f"{name} has served, and somebody went back since: it is not deployed again"
    assert manifest.parent is not None
    before = work.repository.manifest(MODEL, manifest.parent).files
    new = manifest.files.items() - before.items()
    if new and new <= registry.taken_back(work.repository, MODEL, changes):
        return (
            f"{name} is what somebody rolled back, byte for byte: it is not deployed until its "
            "rows or its pack change; to have it all the same, promote it"
        )
    return None


def record(work: Work, candidate: Candidate, version: Version, context: Context) -> None:
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

    def write(connection: Connection) -> bool:
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
                prefix = "" if work.frozen else HELD_OUT
                measured = records(answers, work.pack.languages, facts, prefix)
                insert_new(connection, evaluation, measured)
        return True

    if not in_database(work.settings, context, write):
        context.log("no database yet: nothing recorded")
    else:  # it may have been away when the version was deployed
        record_last(work.repository, MODEL, partial(record_deployment, work.settings.database))


def result(
    work: Work, candidate: Candidate, version: Version, held_back: str | None
) -> dict[str, Any]:
    return {
        "model": MODEL,
        "version": version.number,
        "passed": candidate.passed,
        "deployed": candidate.passed and held_back is None,
        "held_back": held_back,
        "generation": work.repository.deployment(MODEL).generation,
        "dataset_digest": work.dataset.digest,
        "metrics": candidate.answers.metrics(),
        "champion_metrics": candidate.champion.metrics() if candidate.champion else None,
        "checks": [asdict(check) for check in candidate.checks],
    }


def in_database(settings: Settings, context: Context, ask: Callable[[Connection], T]) -> T | None:
    """`ask` in a transaction, as soon as there is a database; None where nobody has made the tables
    (a command before the first start). What `ask` writes may be written twice."""
    told = False
    while True:
        try:
            with transaction(settings.database) as connection:
                return ask(connection) if read_revision(connection) == REVISION else None
        except AWAY as error:
            if not told:
                context.log(f"waits for the database: {str(error).splitlines()[0]}")
            told = True
        time.sleep(WAIT_SECONDS)
