from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from govor.database import transaction
from govor.tables import job
from tests.gateway.conftest import Gateway


def alert(**changed: Any) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "AccuracyUnderGate", "retrain": "intents", "domain": "desk"},
        "annotations": {"summary": "nlu understands 10% of desk's frozen set"},
        "fingerprint": "4f1c",
        "startsAt": "2026-11-21T08:00:00Z",
        **changed,
    }


async def tell(client: httpx.AsyncClient, *alerts: dict[str, Any]) -> list[str]:
    answer = await client.post("/v1/alerts", json={"version": "4", "alerts": alerts})
    assert answer.status_code == 202, answer.text
    found: list[str] = answer.json()["jobs"]
    return found


def stored(folder: Path) -> list[Any]:
    with transaction(f"sqlite:///{folder}/var/govor.db") as connection:
        return list(connection.execute(select(job)))


async def test_an_alert_asks_for_one_training_a_window(gateway: Gateway, tmp_path: Path) -> None:
    async with gateway() as client:
        first = await tell(client, alert(), alert())
        assert first[0] == first[1]
        with transaction(f"sqlite:///{tmp_path}/var/govor.db") as connection:
            connection.execute(update(job).values(state="done"))
        assert await tell(client, alert()) == first[:1]
        others = await tell(client, alert(fingerprint="77aa"))
    assert others != first[:1]
    one, _ = stored(tmp_path)
    assert (one.recipe, one.domain) == ("intents", "desk")
    assert one.requested_by == "alert AccuracyUnderGate"
    assert one.reason == "nlu understands 10% of desk's frozen set"


async def test_an_alert_without_a_domain_is_for_the_default_one(
    gateway: Gateway, tmp_path: Path
) -> None:
    async with gateway() as client:
        await tell(client, alert(labels={"alertname": "Mine", "retrain": "intents"}))
    assert [one.domain for one in stored(tmp_path)] == ["desk"]


async def test_the_next_window_has_its_own_training(gateway: Gateway, tmp_path: Path) -> None:
    async with gateway(gateway_retrain_window_seconds=0.000001) as client:
        first = await tell(client, alert())
        with transaction(f"sqlite:///{tmp_path}/var/govor.db") as connection:
            connection.execute(update(job).values(state="failed"))
        second = await tell(client, alert())
    assert first != second


async def test_what_is_over_or_asks_for_nothing_does_nothing(
    gateway: Gateway, tmp_path: Path
) -> None:
    async with gateway() as client:
        assert await tell(client, alert(status="resolved")) == []
        assert await tell(client, alert(labels={"alertname": "ServiceDown"})) == []
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    "labels",
    [
        {"retrain": "sorcery"},
        {"retrain": "x" * 101},
        {"retrain": "intents", "domain": "nowhere"},
        {"retrain": "intents", "domain": "../packs/desk"},
    ],
)
async def test_an_alert_that_cannot_be_answered_does_not_cost_the_others(
    gateway: Gateway, tmp_path: Path, caplog: pytest.LogCaptureFixture, labels: dict[str, str]
) -> None:
    async with gateway() as client:
        taken = await tell(client, alert(labels=labels, fingerprint="bad1"), alert())
    (one,) = stored(tmp_path)
    assert (taken, one.recipe) == ([one.id], "intents")
    (told,) = [each.getMessage() for each in caplog.records if "bad1" in each.getMessage()]
    assert told.startswith("no training for the alert bad1: ")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "version"),
        ({"version": "3", "alerts": []}, "version"),
        ({"version": "4", "alerts": [{"status": "firing"}]}, "alerts.0.labels"),
        ({"version": "4", "alerts": [alert(labels={"retrain": "sorcery"})]}, "recipe"),
        ({"version": "4", "alerts": [alert(labels={"retrain": "x" * 101})]}, "recipe"),
        (
            {"version": "4", "alerts": [alert(labels={"retrain": "intents", "domain": "none"})]},
            "domain",
        ),
    ],
)
async def test_a_malformed_body_is_refused(
    gateway: Gateway, tmp_path: Path, body: dict[str, Any], param: str
) -> None:
    async with gateway() as client:
        answer = await client.post("/v1/alerts", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
    assert stored(tmp_path) == []


async def test_only_administrators_tell(gateway: Gateway, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("app speak sk-app\n")
    async with gateway(keys_file=keys) as client:
        told = {"version": "4", "alerts": [alert()]}
        bearer = {"authorization": "Bearer sk-app"}
        answer = await client.post("/v1/alerts", json=told, headers=bearer)
    assert answer.status_code == 403
