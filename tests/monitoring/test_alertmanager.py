"""From an alert to a job: Debian's Alertmanager, our configuration, the gateway on a port."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import select

from govor.database import migrate, transaction
from govor.tables import job
from monitoring import receivers
from services.gateway.main import create_app
from services.gateway.settings import GatewaySettings
from tests.core.apps import on_a_port
from tests.gateway.siblings import Script, siblings
from tests.monitoring.conftest import alertmanager, program
from tests.monitoring.rules import ALERTS, labels_of, seconds
from tests.monitoring.waiting import until

HOME = Path(__file__).resolve().parents[2]
PACKS = HOME / "tests" / "gateway" / "packs"
EXAMPLE = receivers.BASE.with_name("receivers.example.yaml")
KEY = "sk-alertmanager"


def hurried(config: dict[str, Any], url: str, key: Path) -> dict[str, Any]:
    """Our configuration with the gateway elsewhere, that waits and repeats within seconds."""
    for route in (config["route"], *config["route"]["routes"]):
        # A second is enough for a busy machine to see which of the alerts inhibits which.
        route |= {"group_wait": "1s", "group_interval": "500ms", "repeat_interval": "500ms"}
    (gateway,) = (one for one in config["receivers"] if one["name"] == "gateway")
    (hook,) = gateway["webhook_configs"]
    hook["url"] = f"{url}/v1/alerts"
    hook["http_config"]["authorization"]["credentials_file"] = str(key)
    return config


def alert(**labels: str) -> dict[str, Any]:
    return {
        "labels": {"alertname": "AccuracyUnderGate", "severity": "ticket", **labels},
        "annotations": {"summary": "nlu understands 10% of desk's frozen set"},
    }


def notified(client: httpx.Client) -> float:
    """How often Alertmanager has told a webhook."""
    page = client.get("/metrics").text.splitlines()
    name = 'alertmanager_notifications_total{integration="webhook"'
    return sum(float(line.split()[-1]) for line in page if line.startswith(name))


@contextmanager
def people() -> Iterator[tuple[str, set[tuple[str, str]]]]:
    """Where a webhook tells people, and the alerts it told: name and service."""
    told: set[tuple[str, str]] = set()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told.update(short(one["labels"]) for one in body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", told
        finally:
            server.shutdown()
            thread.join()


def short(labels: dict[str, str]) -> tuple[str, str]:
    return labels["alertname"], labels.get("service", "")


def firing(name: str, **own: str) -> dict[str, Any]:
    """An alert with the labels that Prometheus gives it."""
    return {"labels": {"alertname": name, **labels_of(ALERTS[name], own)}}


def drive(client: httpx.Client, stored: Callable[[], list[Any]]) -> None:
    """What Prometheus would do, in a thread of its own: the gateway has the event loop."""
    post = "/api/v2/alerts"
    asking = alert(retrain="intents", domain="desk")
    client.post(post, json=[asking, alert(domain="desk")]).raise_for_status()
    until("a job", stored, 60)
    until("three repeats", lambda: notified(client) >= 3, 60)
    over = {**asking, "endsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1))}
    client.post(post, json=[over]).raise_for_status()
    time.sleep(1)


async def test_an_alert_becomes_one_job_however_often_it_is_told(tmp_path: Path) -> None:
    program("prometheus-alertmanager", "alertmanager")
    keys, key, file = tmp_path / "keys", tmp_path / "gateway.key", tmp_path / "alertmanager.yml"
    keys.write_text(f"alertmanager admin {KEY}\n")
    key.write_text(f"{KEY}\n")
    settings = GatewaySettings(domains=PACKS, domain="desk", var=tmp_path / "var", keys_file=keys)
    migrate(settings.database)

    def stored() -> list[Any]:
        with transaction(settings.database) as connection:
            return list(connection.execute(select(job)))

    app = create_app(settings, siblings(Script()))
    async with on_a_port(app, app) as url:
        file.write_text(yaml.safe_dump(hurried(receivers.config(None), url, key)))
        with alertmanager(file, tmp_path) as client:
            await asyncio.to_thread(drive, client, stored)
    (only,) = stored()
    assert (only.recipe, only.domain) == ("intents", "desk")
    assert only.requested_by == "alert AccuracyUnderGate"


OF_A_SERVICE = [
    *("ErrorRate", "LatencyHigh", "ErrorBudgetBurnFast", "ErrorBudgetBurnSlow"),
    *("QueueWait", "Shedding"),
]


@pytest.mark.parametrize(
    ("heard", "silenced"),
    [
        pytest.param(
            [firing("ServiceDown", job="worker"), firing("NoWorker")],
            [firing("Backlog", queue="cpu"), firing("JobStuck", recipe="intents")],
            id="no worker, and jobs wait",
        ),
        pytest.param(
            [firing("ServiceDown", job="nlu"), firing("ErrorRate", service="stt")],
            [
                *(firing(name, service="nlu") for name in OF_A_SERVICE),
                firing("Degraded", part="nlu"),
                firing("Degraded", part="stt"),
            ],
            id="a service is down, another fails",
        ),
        pytest.param(
            [firing("Shedding", service="nlu"), firing("Degraded", part="tts")],
            [firing("ErrorRate", service="nlu"), firing("Degraded", part="nlu")],
            id="a queue is full, another part hangs",
        ),
    ],
)
def test_one_trouble_is_told_once(
    tmp_path: Path, heard: list[dict[str, Any]], silenced: list[dict[str, Any]]
) -> None:
    file = tmp_path / "alertmanager.yml"
    with people() as (url, told):
        whole = receivers.config({"people": {"webhook_configs": [{"url": url}]}})
        file.write_text(yaml.safe_dump(hurried(whole, url, tmp_path / "key")))
        with alertmanager(file, tmp_path) as client:
            client.post("/api/v2/alerts", json=heard + silenced).raise_for_status()
            expected = {short(one["labels"]) for one in heard}
            until("all that should be heard", lambda: told >= expected, 60)
            time.sleep(1)  # two more rounds of each group
    assert told == expected


def test_the_rules_of_silence_name_alerts_that_there_are() -> None:
    rules = receivers.config(None)["inhibit_rules"]
    matchers = [one for rule in rules for one in rule["source_matchers"] + rule["target_matchers"]]
    found = [re.fullmatch(r'alertname =~? "?([^"]+)"?', matcher) for matcher in matchers]
    names = {name for one in found if one for name in one[1].split("|")}
    assert "ServiceDown" in names
    assert names <= set(ALERTS)


def test_the_watchdog_is_told_every_five_minutes() -> None:
    """Alertmanager tells again at the first round that is later than `repeat_interval`: at a
    multiple of the rounds it would be that one or the next."""
    routes = receivers.config(None)["route"]["routes"]
    (route,) = (one for one in routes if one["receiver"] == "watchdog")
    rounds, rest = divmod(seconds(route["repeat_interval"]), seconds(route["group_interval"]))
    assert rest > 0
    assert (rounds + 1) * seconds(route["group_interval"]) == 300
    assert "Told every five minutes" in EXAMPLE.read_text()


@pytest.mark.parametrize("given", [None, "example"])
def test_alertmanager_takes_the_configuration(tmp_path: Path, given: str | None) -> None:
    if given:
        lines = EXAMPLE.read_text().split("#\n", 1)[1].splitlines()
        (tmp_path / "receivers.yaml").write_text("\n".join(line[2:] for line in lines))
    made = tmp_path / "alertmanager.yml"
    receivers.render(tmp_path / "receivers.yaml", made)
    assert made.stat().st_mode & 0o777 == 0o640
    done = subprocess.run([program("amtool"), "check-config", made], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    names = {one["name"]: set(one) for one in yaml.safe_load(made.read_text())["receivers"]}
    people = {"email_configs", "slack_configs", "telegram_configs", "webhook_configs"}
    assert names["people"] - {"name"} == (people if given else set())


def test_what_people_read_leads_to_the_runbook() -> None:
    slack = {"api_url": "https://hooks.example.org/x", "channel": "#govor"}
    own = {"api_url": "https://hooks.example.org/y", "text": "ours"}
    made = receivers.config({"people": {"slack_configs": [slack, own]}})
    first, second = made["receivers"][0]["slack_configs"]
    for word in ("summary", "runbook", "panel", "command"):
        assert f".Annotations.{word}" in first["text"]
    assert second["text"] == "ours"


@pytest.mark.parametrize(
    "text",
    [
        "people: [",
        "nobody: {}",
        "- people",
        "people:\n  - to: night@example.org",
        "people:\n  emial_configs: []",
        "watchdog:\n  s3cret: []",
        "people:\n  email_configs:\n    to: s3cret@example.org",
        "people:\n  email_configs: [s3cret@example.org]",
        "global:\n  smtp_auth_password: *s3cret",
        "global:\n  smtp_auth_password: s3cret: more",
    ],
)
def test_a_wrong_file_of_receivers_is_one_line_without_its_text(tmp_path: Path, text: str) -> None:
    """And what Alertmanager reads stays as it was: it would not start with this."""
    (tmp_path / "receivers.yaml").write_text(text)
    (tmp_path / "alertmanager.yml").write_text("the one before")
    with pytest.raises(receivers.BadReceivers, match=r"file of receivers|is no YAML") as told:
        receivers.render(tmp_path / "receivers.yaml", tmp_path / "alertmanager.yml")
    assert "s3cret" not in str(told.value)
    assert "\n" not in str(told.value)
    assert (tmp_path / "alertmanager.yml").read_text() == "the one before"


def test_receivers_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / "receivers.yaml").mkdir()
    with pytest.raises(receivers.BadReceivers, match="cannot be read"):
        receivers.render(tmp_path / "receivers.yaml", tmp_path / "alertmanager.yml")


def test_make_alert_test_reaches_whom_a_page_reaches(tmp_path: Path) -> None:
    file = tmp_path / "alertmanager.yml"
    key = tmp_path / "key"
    file.write_text(yaml.safe_dump(hurried(receivers.config(None), "http://127.0.0.1:1", key)))
    dry = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "alert-test"],
        cwd=HOME,
        capture_output=True,
        text=True,
    )
    words = shlex.split(dry.stdout.replace("\\\n", " "))
    said = words[words.index("amtool") + 2 :]  # after where it is in the stack
    # Alertmanager's newer parser warns of words that are not quoted, and falls back to the older.
    assert all(word.endswith('"') for word in said if " " in word), said
    with alertmanager(file, tmp_path) as client:
        where = f"--alertmanager.url={client.base_url}"
        subprocess.run([program("amtool"), where, *said], check=True)
        (one,) = client.get("/api/v2/alerts").json()
    assert one["labels"]["alertname"] == "AlertTest"
    assert one["annotations"]["command"] == "make alert-test"
    assert one["receivers"] == [{"name": "people"}]
