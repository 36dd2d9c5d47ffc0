"""What versions there are, which one serves, and the two writes that change it: promote, roll back.

Files serve, tables explain: what is listed comes from the repository, and from the database the
deployments so far. All functions wait for disks: off the event loop.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from govor.database import record_deployment, transaction
from govor.errors import Conflict, NotFound, Unavailable
from govor.repository import (
    Deployment,
    Manifest,
    Repository,
    VersionBroken,
    deploy,
    record_last,
)
from govor.schemas.registry import Comparison, ModelStatus, ModelVersion, State
from govor.tables import deployment_event

log = logging.getLogger(__name__)


def models(repository: Repository) -> list[ModelStatus]:
    """Every model; what cannot be read is in the log."""
    found = []
    for model in repository.models():
        try:
            found.append(status(repository, model))
        except (VersionBroken, NotFound) as error:  # NotFound: gates refused all that it has
            log.error("%s", error)
    return found


def status(repository: Repository, model: str) -> ModelStatus:
    """Raises `NotFound` (`model_not_found`)."""
    serving = repository.deployment(model).model_dump(exclude={"mode", "share", "salt"})
    return ModelStatus(model=model, versions=repository.versions(model), **serving)


def versions(repository: Repository, model: str) -> list[ModelVersion]:
    """All versions, the newest first; what cannot be read is in the log. Raises as `status`."""
    champion = repository.deployment(model).champion
    found = []
    for number in reversed(repository.versions(model)):
        try:
            found.append(_described(repository.manifest(model, number), champion))
        except VersionBroken as error:
            log.error("%s", error)
    return found


def compare(repository: Repository, model: str, numbers: Sequence[int]) -> Comparison:
    """Versions side by side. Raises `NotFound` (`model_not_found`, `version_not_found`)."""
    champion = repository.deployment(model).champion
    manifests = [repository.manifest(model, number) for number in numbers]
    names = sorted({name for one in manifests for name in one.metrics})
    files = sorted({name for one in manifests for name in one.files})
    return Comparison(
        model=model,
        versions=[_described(one, champion) for one in manifests],
        metrics={name: [one.metrics.get(name) for one in manifests] for name in names},
        files=[name for name in files if len({one.files.get(name) for one in manifests}) > 1],
    )


def promote(
    repository: Repository, url: str, model: str, version: int, actor: str, reason: str | None
) -> ModelStatus:
    """Makes a version the champion; when it is that already, only a missing event is.

    Raises `NotFound`, `Conflict` (`version_rejected`; `deployment_changed` when somebody else wrote
    in the same moment).
    """
    current, record = repository.deployment(model), partial(record_deployment, url)
    if current.champion == version:
        record_last(repository, model, record)
    else:
        change, why = {"champion": version}, reason or "promoted"
        deploy(repository, model, change, current.generation, record, actor=actor, reason=why)
    return status(repository, model)


def rollback(
    repository: Repository, url: str, model: str, actor: str, reason: str | None
) -> ModelStatus:
    """Makes the champion before this one serve again, as the deployments so far tell it; a second
    call goes one further back. An older version that was promoted counts as a way back, too: what
    served in between comes again by being promoted.

    Raises `Conflict` (`nothing_to_roll_back_to`; `deployment_changed`), `NotFound`, `Unavailable`
    when the database is away.
    """
    current, record = repository.deployment(model), partial(record_deployment, url)
    record_last(repository, model, record)
    try:
        with transaction(url) as connection:
            before = _champions_before(history(connection, model), current)
    except (SQLAlchemyError, OSError) as error:
        why = "the database that knows the champion before is away"
        raise Unavailable(why, code="database_unavailable") from error
    known = set(repository.versions(model))
    earlier = next((number for number in reversed(before) if number in known), None)
    if earlier is None:
        raise Conflict(
            f"{model} has no champion before version {current.champion}; another can be promoted",
            code="nothing_to_roll_back_to",
        )
    change, why = {"champion": earlier}, reason or "rolled back"
    deploy(repository, model, change, current.generation, record, actor=actor, reason=why)
    return status(repository, model)


def history(connection: Connection, model: str) -> list[tuple[int | None, int | None]]:
    """The champions before and after each deployment of a model, the oldest first."""
    table = deployment_event
    rows = connection.execute(
        select(table.c.before, table.c.after)
        .where(table.c.model == model)
        .order_by(table.c.generation, table.c.id)
    )
    return [(row.before["champion"], row.after["champion"]) for row in rows]


def deployments(connection: Connection, model: str) -> Sequence[Row[Any]]:
    """`at`, `before` and `after` of each deployment of a model, the oldest first: by their moments,
    because generations begin again where models were restored from an older copy."""
    table = deployment_event
    asked: Any = select(table.c.at, table.c.before, table.c.after).where(table.c.model == model)
    return connection.execute(asked.order_by(table.c.at, table.c.id)).all()


def has_served(changes: Sequence[Row[Any]], manifest: Manifest) -> bool:
    """Whether a version has been a champion, as `deployments` tell it. Those from before it was
    made are of another version of its number, which is gone."""
    return any(
        manifest.version in (row.before["champion"], row.after["champion"])
        for row in changes
        if _there(manifest, row.at)
    )


def taken_back(
    repository: Repository, model: str, changes: Sequence[Row[Any]]
) -> set[tuple[str, str]]:
    """The files, by name and digest, that served until somebody went back to an earlier version,
    and have not served since."""
    served: dict[int, set[tuple[str, str]]] = {}
    found: set[tuple[str, str]] = set()
    known = {}
    for number in repository.versions(model):
        with contextlib.suppress(VersionBroken):
            known[number] = repository.manifest(model, number)
    for row in changes:
        before, after = row.before["champion"] or 0, row.after["champion"] or 0
        for number in (before, after):
            if number in known and _there(known[number], row.at):
                served[number] = set(known[number].files.items())
        if after < before and after in served:
            for number in served:
                found |= served[number] if number > after else set()
        found -= served.get(after, set())
    return found


def _there(manifest: Manifest, at: datetime) -> bool:
    made = datetime.fromisoformat(manifest.created_at)
    return at >= (made if made.tzinfo else made.replace(tzinfo=UTC))


def _champions_before(
    changes: Sequence[tuple[int | None, int | None]], current: Deployment
) -> list[int]:
    """The champions under the present one. A return to an earlier one takes those above it away,
    so that rolling back twice does not come back."""
    stack: list[int] = []
    for number in (*(number for change in changes for number in change), current.champion):
        if number in stack:
            del stack[stack.index(number) + 1 :]
        elif number is not None:
            stack.append(number)
    return stack[:-1]


def _described(manifest: Manifest, champion: int | None) -> ModelVersion:
    state: State = "published"
    if manifest.rejected:
        state = "rejected"
    elif manifest.version == champion:
        state = "champion"
    return ModelVersion(state=state, **_facts(manifest))


def _facts(manifest: Manifest) -> dict[str, Any]:
    body = manifest.model_dump()
    return {name: body[name] for name in ModelVersion.model_fields if name in body}


def check_model(repository: Repository, model: str) -> None:
    """Raises `NotFound` (`model_not_found`) for a name that is none: it goes into paths."""
    if model not in repository.models():
        raise NotFound(f"there is no model {model}", code="model_not_found", param="model")
