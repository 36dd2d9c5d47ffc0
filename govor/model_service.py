"""A service that serves models: `govor.service` plus versions, the database and the prediction log.

The four model services are this and a verb each.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI

from govor.config import Settings
from govor.database import Database, read_api_keys
from govor.errors import NotFound
from govor.keys import KeyRow
from govor.metrics import Metrics
from govor.predictions import (
    CONSENT_HEADER,
    TURN_HEADER,
    Prediction,
    PredictionLog,
    as_consent,
)
from govor.repository import Repository, Version
from govor.service import create_service
from govor.serving import Lease, Model, Served
from govor.spool import Spool
from govor.verbs import Call

Loader = Callable[[Version, Metrics], Model]


class Models:
    """The models of one service (`app.state.models`): leases of them, and the log of what they
    answered."""

    def __init__(self, name: str, settings: Settings, loaders: Mapping[str, Loader]) -> None:
        self._name = name
        self._settings = settings
        self._database = Database(settings.database)
        self.metrics: Metrics | None = None
        repository = Repository(settings.repository_folder, settings.bundled_folder)
        self.served: dict[str, Served[Any]] = {
            model: Served(
                repository,
                model,
                partial(self._load, loader),
                poll_seconds=settings.poll_seconds,
                changed=self._changed,
            )
            for model, loader in loaders.items()
        }
        spool = Spool(settings.var_folder / "spool" / name, settings.spool_max_bytes)
        self.predictions = PredictionLog(
            self._database, spool, spooled=self._spooled, dropped=self._dropped
        )

    async def start(self) -> None:
        await self._database.start()
        await self.predictions.start()

    async def stop(self) -> None:
        await self.predictions.stop()
        await self._database.stop()

    def ready(self) -> tuple[bool, str]:
        return self._database.ready()

    async def keys(self) -> list[KeyRow]:
        return await self._database.run(read_api_keys)

    @contextlib.asynccontextmanager
    async def acquire(
        self, call: Call, model: str, version: int | None = None
    ) -> AsyncIterator[Lease[Any]]:
        """Leases the version that answers a call, which from now on counts under this model.

        Raises `NotFound` (`model_not_found`, `version_not_found`), `Forbidden` for a version
        without the scope `admin`, `Unavailable` when none is loaded.
        """
        if version is not None:
            call.admin_only("version")
        served = self.served.get(model)
        if served is None:
            known = ", ".join(sorted(self.served))
            raise NotFound(
                f"{self._name} has no model {model}: {known}", code="model_not_found", param="model"
            )
        call.model = model
        async with served.acquire(version) as lease:
            yield lease

    def check_domain(self, domain: str | None) -> str:
        """The pack that a request is about. Raises `NotFound` (`domain_not_found`)."""
        name = domain or self._settings.domain
        if not name.isidentifier() or not (self._settings.domains_folder / name).is_dir():
            raise NotFound(f"there is no domain {name}", code="domain_not_found", param="domain")
        return name

    def record(self, call: Call, version: Version, **facts: Any) -> None:
        """Logs an answer; `facts` are fields of `Prediction`."""
        told = call.headers if call.principal.internal else {}
        self.predictions.record(
            Prediction(
                service=self._name,
                model=version.model,
                version=version.number,
                consent=as_consent(told.get(CONSENT_HEADER), self._settings.default_consent),
                turn_id=told.get(TURN_HEADER),
                subject=call.principal.subject,
                **facts,
            )
        )

    def _load(self, loader: Loader, version: Version) -> Model:
        assert self.metrics is not None
        return loader(version, self.metrics)

    def _changed(self, version: Version) -> None:
        assert self.metrics is not None
        self.metrics.serves(version.model, version.number, version.manifest.backend)

    def _spooled(self, count: int) -> None:
        assert self.metrics is not None
        self.metrics.spooled.inc(count)

    def _dropped(self, count: int) -> None:
        assert self.metrics is not None
        self.metrics.dropped.inc(count)


def create_model_service(
    name: str, settings: Settings, *, description: str, loaders: Mapping[str, Loader]
) -> FastAPI:
    """A service with the models that `loaders` open; `app.state.models` leases them."""
    models = Models(name, settings, loaders)
    app = create_service(
        name,
        settings,
        description=description,
        parts={"database": models, **models.served},
        key_table=models.keys,
    )
    models.metrics = app.state.metrics
    for model, served in models.served.items():
        models.metrics.watch_ready(model, served.ready)
    app.state.models = models
    return app


def headers_of(version: Version) -> dict[str, str]:
    """What every inference answer says of who answered."""
    return {"X-Model": version.model, "X-Model-Version": str(version.number)}
