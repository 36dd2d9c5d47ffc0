"""`POST /v1/alerts`: Alertmanager tells of alerts; one that asks for it is answered by a training.

Alertmanager repeats itself, and an alert stays until the new version is measured: hence one
training a window, whether the last one is under way, done or failed.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import BackgroundTasks, Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.engine import Connection

from govor import jobs
from govor.bodies import parse_fields
from govor.database import Database
from govor.errors import NotFound, Unprocessable
from govor.keys import Principal
from govor.schemas.alerts import Alert, Alerts, Retrained
from govor.schemas.jobs import Job, JobRequest
from govor.service import administrator
from govor.tables import job
from services.gateway.packs import Packs
from services.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

_EXAMPLE = {
    "version": "4",
    "alerts": [
        {
            "status": "firing",
            "labels": {"alertname": "AccuracyUnderGate", "retrain": "intents", "domain": "support"},
            "annotations": {"summary": "the champion is under its gate"},
            "fingerprint": "9c1f2f7b3d5a6e40",
        }
    ],
}


def add_routes(app: FastAPI, settings: GatewaySettings, database: Database, packs: Packs) -> None:
    window = timedelta(seconds=settings.gateway_retrain_window_seconds)

    @app.post(
        "/v1/alerts",
        summary="What Alertmanager tells",
        status_code=202,
        tags=["gateway"],
        openapi_extra={"requestBody": {"content": {"application/json": {"example": _EXAMPLE}}}},
    )
    async def alerts(
        told: Alerts, _: Annotated[Principal, Depends(administrator)], after: BackgroundTasks
    ) -> Retrained:
        """Alertmanager's webhook (version 4). An alert that fires and has the label `retrain` asks
        for a training of that recipe, for the domain of its label `domain`. One that asks for what
        there is not is logged; the answer is 422 only where all of them do."""
        asking = [alert for alert in told.alerts if _asks(alert)]

        def retrain(connection: Connection) -> list[tuple[Job, bool]]:
            return _retrain_all(connection, asking, packs, window)

        found = await database.run(retrain) if asking else []
        for one, new in found:
            if new:
                after.add_task(jobs.ring, settings, one)  # with Redis away it may take 3 s
        return Retrained(jobs=[one.id for one, _ in found])


def _asks(alert: Alert) -> bool:
    return alert.status == "firing" and bool(alert.labels.get("retrain"))


def _retrain_all(
    connection: Connection, asking: list[Alert], packs: Packs, window: timedelta
) -> list[tuple[Job, bool]]:
    """What `_retrain` has for each alert that can be answered. Raises `Unprocessable` where none
    can: Alertmanager does not repeat what had a 4xx, so one bad alert must not cost the others."""
    found: list[tuple[Job, bool]] = []
    refused: list[Unprocessable] = []
    for alert in asking:
        try:
            found.append(_retrain(connection, alert, packs, window))
        except Unprocessable as error:
            log.warning("no training for the alert %s: %s", alert.fingerprint, error)
            refused.append(error)
    if refused and not found:
        raise refused[0]
    return found


def _retrain(
    connection: Connection, alert: Alert, packs: Packs, window: timedelta
) -> tuple[Job, bool]:
    """The job that answers an alert, and whether it is a new one. Raises `Unprocessable`."""
    key = f"alert {alert.fingerprint}"
    earlier = connection.scalar(
        select(job.c.id)
        .where(job.c.idempotency_key == key, job.c.created_at > datetime.now(UTC) - window)
        .limit(1)
    )
    if earlier is not None:
        return jobs.read(connection, earlier), False
    try:
        domain = packs.get(alert.labels.get("domain") or packs.default).name
    except NotFound as error:
        raise Unprocessable(error.message, code=error.code, param=error.param) from None
    asked = jobs.enqueue(
        connection,
        parse_fields(JobRequest, {"recipe": alert.labels["retrain"], "domain": domain}),
        requested_by=f"alert {alert.labels.get('alertname', 'without a name')}",
        reason=alert.annotations.get("summary"),
        idempotency_key=key,
    )
    return asked, True
