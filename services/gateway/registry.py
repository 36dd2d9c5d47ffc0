"""`/v1/registry`: the versions of each model, and which one serves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query

from govor import registry
from govor.errors import InvalidRequest, Unavailable
from govor.keys import Principal
from govor.repository import Repository, VersionBroken
from govor.schemas.registry import (
    Comparison,
    ModelStatus,
    PromoteRequest,
    Registry,
    RollbackRequest,
    Versions,
)
from govor.service import administrator
from services.gateway.settings import GatewaySettings

T = TypeVar("T")
_PROMOTE = {"version": 2, "reason": "it knows more ways to ask for a refund"}
_ROLLBACK = {"reason": "it takes complaints for greetings"}
Admin = Annotated[Principal, Depends(administrator)]


def add_routes(app: FastAPI, settings: GatewaySettings) -> None:
    repository = Repository(settings.repository_folder, settings.bundled_folder)

    async def run(model: str, work: Callable[[], T]) -> T:
        """`work` in a thread, for a model that there is."""

        def checked() -> T:
            registry.check_model(repository, model)
            return work()

        try:
            return await asyncio.to_thread(checked)
        except VersionBroken as error:
            raise Unavailable(str(error), code="version_broken") from error

    @app.get(
        "/v1/registry",
        summary="Which version of each model serves",
        tags=["gateway"],
        dependencies=[Depends(administrator)],
    )
    async def get_registry() -> Registry:
        """Every model: which version serves, since when, and those there are."""
        return Registry(models=await asyncio.to_thread(registry.models, repository))

    @app.get(
        "/v1/registry/{model}/versions",
        summary="The versions of a model",
        tags=["gateway"],
        dependencies=[Depends(administrator)],
    )
    async def get_versions(model: str) -> Versions:
        """The versions of a model, the newest first: where each came from, what it scored, what
        its gate said."""
        found = await run(model, lambda: registry.versions(repository, model))
        return Versions(model=model, versions=found)

    @app.get(
        "/v1/registry/{model}/compare",
        summary="Versions side by side",
        tags=["gateway"],
        dependencies=[Depends(administrator)],
    )
    async def compare(
        model: str, versions: Annotated[str, Query(description="two or more, as in 1,2")]
    ) -> Comparison:
        """Versions side by side: metrics by name, and the files that differ."""
        numbers = _numbers(versions)
        return await run(model, lambda: registry.compare(repository, model, numbers))

    @app.post(
        "/v1/registry/{model}/promote",
        summary="Make a version the champion",
        tags=["gateway"],
        openapi_extra=_example(_PROMOTE),
    )
    async def promote(model: str, asked: PromoteRequest, who: Admin) -> ModelStatus:
        """Makes a version the champion: every replica serves it within seconds. One that its gate
        refused is 409 `version_rejected`."""
        given = (repository, settings.database, model, asked.version, who.name, asked.reason)
        return await run(model, lambda: registry.promote(*given))

    @app.post(
        "/v1/registry/{model}/rollback",
        summary="Go back to the champion before",
        tags=["gateway"],
        openapi_extra=_example(_ROLLBACK),
    )
    async def rollback(model: str, who: Admin, asked: RollbackRequest | None = None) -> ModelStatus:
        """Makes the champion before this one serve again; 409 `nothing_to_roll_back_to` when there
        was none."""
        reason = asked.reason if asked else None
        given = (repository, settings.database, model, who.name, reason)
        return await run(model, lambda: registry.rollback(*given))


def _example(body: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"example": body}}}}


def _numbers(text: str) -> list[int]:
    try:
        numbers = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        numbers = []
    if not 2 <= len(numbers) <= 10:
        raise InvalidRequest("versions are two to ten numbers: 1,2", param="versions")
    return numbers
