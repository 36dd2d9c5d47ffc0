"""One retrain of the `nlu` model, whole: a pack's head on the champion's trunk.

Rows -> dataset version -> head -> evaluation beside the champion -> gate -> published version ->
champion. Seconds on one core; the trunk and the other packs' heads are copied bit for bit.

    python -m trainer.recipes.intents --domain parking

does it here and now, `POST /v1/trainings` through the queue.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from govor.config import Settings
from govor.database import insert_new
from govor.domains import Pack, load_evaluation, load_pack
from govor.errors import Conflict, NotFound
from govor.repository import Repository, Version, write_atomically
from govor.tables import dataset_version
from services.nlu.backends.heads import Head
from trainer import datasets, gates, heads, outcome
from trainer.context import Context, Task
from trainer.datasets import DatasetVersion
from trainer.evaluation import Answers, answer, frozen, held_out
from trainer.gates import Check
from trainer.heads import Params, Reader, Trained
from trainer.outcome import MODEL, Candidate, Work


def retrain(task: Task, context: Context, settings: Settings | None = None) -> dict[str, Any]:
    """The recipe's entry: trains, and serves the new head if it passes its gate.

    The result has `model`, `version`, `passed`, `deployed`, `held_back` (why a version that passed
    does not serve), `generation`, `dataset_digest`, `metrics`, `champion_metrics` and `checks`. May
    be repeated after a death at any moment: the same job takes the same rows and publishes one
    version on a champion.
    """
    work = _prepare(task, context, settings or Settings())
    while True:
        generation = work.repository.deployment(MODEL).generation
        with tempfile.TemporaryDirectory(dir=context.folder) as place:
            candidate = _build(work, Path(place), context)
            context.progress("publish", done=0.9)
            context.commit()
            version = outcome.publish(work, candidate)
        verdict = "passed its gate" if candidate.passed else "rejected"
        context.log(f"{MODEL} version {version.number}: {verdict}")
        held_back = None
        try:
            if candidate.passed:
                held_back = outcome.make_champion(work, version, generation, context)
        except Conflict as conflict:
            if conflict.code != "deployment_changed":
                raise
            context.log("the champion changed meanwhile: once more, on the new one")
            continue
        if held_back:
            context.log(held_back)
        outcome.record(work, candidate, version, context)
        context.progress("done", done=1.0)
        return outcome.result(work, candidate, version, held_back)


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
    asked = {datasets.spelt(row.text) for row in judges}
    pinned = context.folder / "dataset"
    digest = (pinned.read_text() if pinned.is_file() else "") or task.dataset
    name, lake = f"intents-{pack.name}", settings.lake_folder
    if digest:
        dataset = datasets.read(lake, name, digest)
        _check_fits(dataset, pack, asked)
    else:
        dataset = _collect(settings, pack, params, name, asked, context)
    write_atomically(pinned, dataset.digest.encode())
    context.log(f"dataset {name} {dataset.digest[:12]}: {len(dataset.rows)} rows")
    return Work(
        task=task,
        params=params,
        settings=settings,
        repository=Repository(settings.repository_folder, settings.bundled_folder),
        pack=pack,
        dataset=dataset,
        frozen=datasets.write(lake, f"evaluation-{pack.name}", judges, []) if judges else None,
        asked=asked,
    )


def _check_fits(dataset: DatasetVersion, pack: Pack, asked: Collection[tuple[str, ...]]) -> None:
    """An earlier dataset was made for the pack and the frozen set of its day."""
    if strange := {row.intent for row in dataset.rows} - {None, *pack.intents}:
        raise ValueError(f"{pack.name} has no intents {sorted(map(str, strange))} any more")
    if count := datasets.without(dataset.rows, asked)[1]:
        raise ValueError(f"the frozen set of {pack.name} asks {count} rows of this dataset by now")


def _collect(
    settings: Settings,
    pack: Pack,
    params: Params,
    name: str,
    asked: Collection[tuple[str, ...]],
    context: Context,
) -> DatasetVersion:
    """The pack's rows and what people corrected, without what the frozen set asks."""
    own = datasets.pack_rows(pack, params.samples, params.seed)
    found = outcome.in_database(
        settings, context, lambda connection: datasets.corrected(connection, pack.name)
    )
    said = datasets.corrections(found or [], pack, own)
    rows, in_frozen = datasets.without([*own, *said.rows], asked)
    left_out = said.left_out | ({"in the frozen set": in_frozen} if in_frozen else {})
    sources = [
        {"name": f"pack {pack.name}", "digest": pack.digest, "rows": len(own)},
        {"name": "corrections", "feedback": said.feedback, "rows": len(said.rows)},
        {"name": "left out", "rows": sum(left_out.values()), "reasons": left_out},
    ]
    dataset = datasets.write(settings.lake_folder, name, rows, sources)
    outcome.in_database(
        settings,
        context,
        lambda connection: insert_new(connection, dataset_version, [dataset.record()]),
    )
    context.log(f"{len(own)} rows of the pack, {len(said.rows)} corrections, left out: {left_out}")
    return dataset


def _build(work: Work, folder: Path, context: Context) -> Candidate:
    """The champion's files with a new head, judged beside the champion."""
    parent = outcome.parent(work)
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
    trained = heads.learn(folder, work.pack, work.dataset.rows, work.params, told, work.asked)
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
    if result["held_back"]:
        verdict = "passed its gate and is held back"
    print(f"nlu version {result['version']} {verdict}; {options.domain}:")
    for key, value in result["metrics"].items():
        print(f"  {key:<22} {value:.4f}")
    return 0 if result["deployed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
