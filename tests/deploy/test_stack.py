"""`make test-compose`: the stack from nothing, used, broken part by part, stopped and started.

The tests are one story and run in the order of the file. Those marked `smoke` are enough for each
change: up, the verbs, a turn, a retrain, down.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import time
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.deploy import inside
from tests.deploy.stack import (
    PROJECT,
    SPEECH,
    Seen,
    Stack,
    basic,
    talking,
    until,
)

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3600)]
smoke = pytest.mark.smoke

Story = list[tuple[str, str]]

# What may be missing from an answer while a part is away (architecture.md, failure rules). `None`:
# the door itself is shut for a moment.
DEGRADES: dict[str, set[str] | None] = {
    "nginx": None,
    "gateway": None,
    "stt": {"stt"},
    "nlu": {"nlu"},
    "generator": {"generator"},
    "tts": {"tts"},
    # A turn is answered from memory and spooled.
    "postgres": {"database"},
}
CONNECTIONS = 32
SECONDS = 60
PLAIN: dict[str, Any] = {"trust_env": False, "timeout": 60}
# As docs/operations.md has it: a number of replicas, while those that run go on.
SCALE = ("up", "--detach", "--wait", "--no-deps", "--no-recreate", "--scale")
SERVED_SECONDS, SWAP_SECONDS = 5, 10


def served(stack: Stack, model: str = "nlu") -> int:
    registry = stack.client.get(f"/v1/registry/{model}/versions")
    registry.raise_for_status()
    return next(v["version"] for v in registry.json()["versions"] if v["state"] == "champion")


def understood_by(stack: Stack) -> int:
    answer = stack.client.post("/v1/understand", json={"text": "hello", "domain": "support"})
    answer.raise_for_status()
    return int(answer.headers["x-model-version"])


@smoke
def test_it_comes_up_healthy_from_nothing(stack: Stack, story: Story) -> None:
    started = time.monotonic()
    stack.up()
    seconds = time.monotonic() - started
    assert not stack.unhealthy()
    story.append(("docker compose up --wait", f"healthy after {seconds:.0f} s, images built"))


@smoke
def test_only_the_door_is_published(stack: Stack) -> None:
    ports = {
        (one["Service"], published["URL"], published["PublishedPort"])
        for one in stack.containers()
        for published in one["Publishers"] or []
        if published["PublishedPort"]
    }
    assert ports == {("nginx", "127.0.0.1", stack.port)}


@smoke
def test_without_a_key_nothing_is_answered(stack: Stack, story: Story) -> None:
    for path in ("/v1/understand", "/v1/converse", "/v1/trainings"):
        answer = httpx.post(f"{stack.url}{path}", json={"text": "hello"}, **PLAIN)
        assert answer.status_code == 401, path
        assert answer.json()["error"]["type"] == "authentication_error"
    for path in ("/grafana/api/health", "/prometheus/api/v1/query?query=up"):
        assert httpx.get(f"{stack.url}{path}", **PLAIN).status_code == 401, path
        with_key = httpx.get(f"{stack.url}{path}", headers=basic(stack.admin_key()), **PLAIN)
        assert with_key.status_code == 200, with_key.text
    story.append(("asked without a key", "401 everywhere; with it Grafana and Prometheus answer"))


@smoke
def test_each_verb_answers_through_the_door(stack: Stack, story: Story) -> None:
    understood = stack.client.post("/v1/understand", json={"text": "horoscope for leo"})
    assert understood.json()["intent"]["name"] == "horoscope"
    heard = stack.client.post(
        "/v1/transcribe",
        files={"file": (SPEECH.name, SPEECH.read_bytes(), "audio/flac")},
        data={"language": "en"},
    )
    assert heard.json()["text"] == "thank you"
    spoken = stack.client.post("/v1/synthesize", json={"text": "The stars are kind today."})
    assert spoken.content[:4] == b"RIFF"
    assert len(spoken.content) > 20_000
    request = {"fields": {"sign": "leo", "language": "en"}, "seed": 1, "stream": True}
    events = []
    with stack.client.stream("POST", "/v1/generate", json=request) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line for line in answer.iter_lines() if line.startswith("event:")]
    assert len(events) > 20
    assert events[-1] == "event: done"
    story.append(
        ("each verb through nginx", f'"{heard.json()["text"]}" heard; {len(events)} events')
    )


@smoke
def test_the_lines_of_the_readme_work(stack: Stack, story: Story) -> None:
    """As printed but for the port, behind the two lines that put the key into each."""
    first, _, second = (stack.folder / "README.md").read_text().partition("## On a server")
    lines = [line.strip() for line in second.splitlines()]
    verbs = [line.strip() for line in first.splitlines() if line.startswith("    curl http")]
    assert len(verbs) == 5
    with_key = [line for line in lines if line.startswith(("KEY=$(docker", "curl() {"))]
    assert len(with_key) == 2
    for verb in verbs:
        line = verb.replace(":8080", f":{stack.port}").replace("curl ", "curl -fsS ", 1)
        script = "\n".join([*with_key, line])
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=stack.folder,
            env=os.environ | {"COMPOSE_PROJECT_NAME": PROJECT},
            capture_output=True,
        )
        assert done.returncode == 0, (verb, done.stderr)
    story.append(("the README's curl lines", f"{len(verbs)} of {len(verbs)} answered"))


@smoke
def test_a_spoken_turn(stack: Stack, story: Story) -> None:
    answer = stack.speak(domain="horoscope")
    assert answer.status_code == 200, answer.text
    turn = answer.json()
    assert turn["degraded"] == []
    assert turn["transcript"]["text"] == "thank you"
    assert turn["understanding"]["intent"]["name"] == "thanks"
    assert turn["reply"]["audio"]
    story.append(("a spoken turn", f'"thank you" -> thanks -> "{turn["reply"]["text"]}"'))


@smoke
def test_a_retrain_by_rest_ends_as_a_served_version(stack: Stack, story: Story) -> None:
    before = served(stack)
    assert understood_by(stack) == before
    job = stack.wait_for_job(stack.train(domain="support"))
    assert job["state"] == "done", job
    result = job["result"]
    assert result["passed"], result
    started = time.monotonic()
    until("nlu serves it", lambda: understood_by(stack) == result["version"], SERVED_SECONDS)
    waited = time.monotonic() - started
    assert served(stack) == result["version"] > before
    logs = stack.client.get(f"/v1/trainings/{job['id']}/logs").text
    assert logs.strip()
    story.append(
        (
            "a retrain by REST",
            f"version {before} -> {result['version']}, served {waited:.1f} s after the job's end",
        )
    )


def test_a_roll_back_is_one_request(stack: Stack, story: Story) -> None:
    after = served(stack)
    answer = stack.client.post("/v1/registry/nlu/rollback")
    assert answer.status_code == 200, answer.text
    until(
        "nlu serves the old one",
        lambda: understood_by(stack) == served(stack) != after,
        SWAP_SECONDS,
    )
    before = served(stack)
    forward = stack.client.post("/v1/registry/nlu/promote", json={"version": after})
    assert forward.status_code == 200, forward.text
    until("nlu serves the new one", lambda: understood_by(stack) == after, SWAP_SECONDS)
    story.append(("roll back, promote", f"version {after} -> {before} -> {after}"))


def replicas_that_answered(stack: Stack, count: int) -> list[float]:
    """Requests that each replica of nlu has counted."""
    script = (
        "import urllib.request as u;"
        "print(sum(float(l.split()[-1]) for l in u.urlopen('http://127.0.0.1:9000/metrics')"
        ".read().decode().splitlines() if l.startswith('model_requests_total{')))"
    )
    return [
        float(stack.compose("exec", "-T", "--index", str(i + 1), "nlu", "python", "-c", script))
        for i in range(count)
    ]


def test_three_replicas_share_the_work_within_seconds(stack: Stack, story: Story) -> None:
    alone = set(stack.compose("ps", "--quiet").split())
    stack.compose(*SCALE, "nlu=3", "nlu")
    together = set(stack.compose("ps", "--quiet").split())
    assert alone < together
    assert len(together - alone) == 2
    start = replicas_that_answered(stack, 3)

    def shared() -> bool:
        for _ in range(12):
            understood_by(stack)
        return all(now > a for a, now in zip(start, replicas_that_answered(stack, 3), strict=True))

    until("all three are asked", shared, 60)
    before = replicas_that_answered(stack, 3)
    for _ in range(90):
        understood_by(stack)
    share = [b - a for a, b in zip(before, replicas_that_answered(stack, 3), strict=True)]
    assert all(count >= 15 for count in share), share
    assert sum(share) == 90
    stack.compose(*SCALE, "nlu=1", "nlu")
    assert set(stack.compose("ps", "--quiet").split()) == alone
    ask = {"text": "hello"}
    failed = sum(
        stack.client.post("/v1/understand", json=ask).status_code != 200 for _ in range(60)
    )
    assert failed == 0
    story.append(
        ("--scale nlu=3, then 1", f"90 requests: {share}; {failed} of 60 failed when two had left")
    )


def test_a_minute_at_32_connections(stack: Stack, story: Story) -> None:
    """All four verbs and turns, mixed; an answer is one in the shape and with status 200."""
    key = stack.admin_key()
    outcomes = asyncio.run(load(stack.url, key))
    total = sum(outcomes.values())
    assert set(outcomes) == {"200"}, outcomes
    assert total > 20 * SECONDS
    story.append(
        (f"{SECONDS} s at {CONNECTIONS}, no limits", f"{total} requests, {dict(outcomes)}")
    )


async def load(url: str, key: str) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    recording = SPEECH.read_bytes()
    requests = itertools.cycle(
        [
            *[("/v1/understand", {"json": {"text": "horoscope for leo"}})] * 12,
            ("/v1/synthesize", {"json": {"text": "The stars are kind today."}}),
            ("/v1/generate", {"json": {"fields": {"sign": "leo"}, "max_tokens": 32}}),
            ("/v1/converse", {"json": {"text": "hello", "language": "en", "reply": ["text"]}}),
            (
                "/v1/transcribe",
                {"files": {"file": ("a.flac", recording, "audio/flac")}, "data": {}},
            ),
        ]
    )

    async def ask(client: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            path, body = next(requests)
            try:
                answer = await client.post(path, **body)
                outcomes[str(answer.status_code)] += 1
            except httpx.TransportError as error:
                outcomes[type(error).__name__] += 1

    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(
        base_url=url,
        headers={"authorization": f"Bearer {key}"},
        limits=limits,
        timeout=120,
        trust_env=False,
    ) as client:
        await asyncio.gather(*(ask(client) for _ in range(CONNECTIONS)))
    return outcomes


def test_no_panel_is_empty(stack: Stack, story: Story) -> None:
    """After a minute of traffic and a retrain every query of every dashboard has data."""
    from monitoring.dashboards import queries
    from monitoring.prometheus_api import empty_panels

    turn = stack.say("hello").json()
    stack.client.post("/v1/feedback", json={"turn_id": turn["turn_id"], "rating": 1})
    url, key = f"{stack.url}/prometheus", stack.admin_key()
    until("every panel has data", lambda: not empty_panels(url, key), 90)
    asked = len(list(queries()))
    story.append(("each panel's query", f"{asked} queries put to Prometheus, none empty"))


def test_an_alert_reaches_alertmanager(stack: Stack, story: Story) -> None:
    names = until(
        "the watchdog in Alertmanager",
        lambda: {alert["labels"]["alertname"] for alert in stack.alerts()},
        300,
    )
    assert "Watchdog" in names
    story.append(("Prometheus -> Alertmanager", f"holds {', '.join(sorted(names))}"))


def test_an_accuracy_alert_retrains_once(stack: Stack, story: Story) -> None:
    """A figure under the gate is pushed; the alert fires, reaches the gateway, one job runs."""
    stack.sql(
        "INSERT INTO evaluation (id, at, model, version, domain, dataset_digest, metrics) VALUES"
        f" ('pushed', now(), 'nlu', {served(stack)}, 'support', 'none', '{{\"accuracy\": 0.1}}')"
    )

    def jobs() -> list[dict[str, object]]:
        listed = stack.client.get("/v1/trainings").json()["jobs"]
        return [job for job in listed if str(job["requested_by"]).startswith("alert")]

    found = until("a job that the alert asked for", jobs, 240)
    ended = stack.wait_for_job(str(found[0]["id"]))
    assert ended["state"] == "done", ended
    assert len(jobs()) == 1
    story.append(("champion's accuracy pushed to 0.1", f"alert -> one job ({ended['state']})"))


def test_redis_restarted_in_mid_training(stack: Stack, story: Story) -> None:
    job_id = stack.train(domain="horoscope")
    until("it runs", lambda: stack.job(job_id)["state"] == "running", 60)
    stack.kill("redis")
    job = stack.wait_for_job(job_id)
    assert job["state"] == "done", job
    seconds = stack.wait_until_healthy(60)
    story.append(
        (
            "redis killed in mid-training",
            f"job done, {job['starts']} start; healthy {seconds:.0f} s",
        )
    )


def test_each_process_may_die(stack: Stack, story: Story) -> None:
    """Turns go on meanwhile; what was accepted is there afterwards."""
    everything = Seen()
    for service in stack.services():
        with talking(stack) as seen:
            time.sleep(1)
            count = int(stack.inspect(service, "{{.RestartCount}}"))
            stack.kill(service)
            until(
                f"{service} restarted",
                lambda s=service, c=count: int(stack.inspect(s, "{{.RestartCount}}")) > c,
                120,
            )
            seconds = stack.wait_until_healthy(60)
            time.sleep(1)
        assert not seen.shapeless, (service, seen.shapeless)
        allowed = DEGRADES.get(service, set())
        if allowed is not None:
            assert not seen.refused, (service, seen.refused)
            assert seen.degraded <= allowed, (service, seen.degraded)
        everything.accepted += seen.accepted
        story.append((f"{service} killed", f"healthy again after {seconds:.0f} s; {seen}"))
    lost = missing(stack, everything.accepted)
    assert lost == []
    story.append(("turns accepted meanwhile", f"{len(everything.accepted)}, {len(lost)} lost"))


def missing(stack: Stack, turns: list[tuple[str, str]]) -> list[str]:
    """The turns that their conversation does not hold, when what was spooled is loaded."""

    def look(conversation: str, turn: str) -> bool:
        answer = stack.client.get(f"/v1/conversations/{conversation}")
        return answer.status_code == 200 and turn in answer.text

    end = time.monotonic() + 60
    while turns and time.monotonic() < end:
        turns = [said for said in turns if not look(*said)]
        time.sleep(1)
    return [turn for _, turn in turns]


def test_a_training_outlives_its_worker(stack: Stack, story: Story) -> None:
    job_id = stack.train(domain="support")
    until("it runs", lambda: stack.job(job_id)["state"] == "running", 60)
    stack.kill("worker")
    job = stack.wait_for_job(job_id)
    assert job["state"] == "done", job
    stack.wait_until_healthy(60)
    story.append(("worker killed in mid-training", f"job done after {job['starts']} starts"))


def test_nothing_runs_as_root_or_writes_outside_its_volumes(stack: Stack, story: Story) -> None:
    names = {one["ID"]: one["Service"] for one in stack.containers()}
    written = {name: found for one, name in names.items() if (found := inside.written(one))}
    roots = [name for one, name in names.items() if 0 in inside.users(one)]
    assert not written
    assert not roots
    story.append((f"looked into {len(names)} containers", "no process of root, no file written"))


@smoke
def test_the_admin_key_is_in_the_gateway_alone(stack: Stack) -> None:
    key = stack.admin_key()
    look = "cat /run/secrets/* /var/lib/govor/secrets/* 2>/dev/null; true"
    for service in ("stt", "nlu", "generator", "tts", "worker", "beat", "redis", "postgres"):
        seen = stack.compose("exec", "-T", service, "sh", "-c", look)
        assert len(seen) > 20, service
        assert key not in seen, service


@smoke
def test_down_and_up_keeps_everything(stack: Stack, story: Story) -> None:
    said = stack.say("hello").json()
    job_id = stack.train(domain="support")
    stack.wait_for_job(job_id)
    champion, key = served(stack), stack.admin_key()
    stack.down()
    stack.up()
    kept = stack.client.get(f"/v1/conversations/{said['conversation_id']}")
    assert said["turn_id"] in kept.text
    assert stack.job(job_id)["state"] == "done"
    assert stack.admin_key() == key
    assert served(stack) == champion
    until("nlu serves it", lambda: understood_by(stack) == champion, SWAP_SECONDS)
    story.append(("down, up", f"conversation, job, key and champion {champion} are still there"))


@smoke
def test_nothing_secret_was_logged(stack: Stack, story: Story) -> None:
    logs = stack.logs()
    find = "find /var/lib/govor/secrets -type f -size -2k -exec cat {} +"
    secrets = stack.compose("run", "--rm", "--no-deps", "-T", "secrets", "sh", "-c", find)
    words = set(re.findall(r"[A-Za-z0-9_+/=-]{24,}", secrets))
    assert len(words) >= 5
    assert not [word[:4] for word in words if word in logs]
    assert "POST" in logs  # of the first start, whose callers said it
    assert "horoscope for leo" not in logs
    story.append(("all logs searched", f"none of {len(words)} secrets, nothing that was said"))


def test_doctor_is_content(stack: Stack, story: Story) -> None:
    for service in ("gateway", "worker", "beat"):
        said = stack.compose("exec", "-T", service, "python", "-m", "services", "doctor")
        assert "fail" not in said.lower()
        story.append((f"doctor in {service}", f"{len(said.splitlines())} lines, nothing failed"))


def test_access_log_is_json_with_the_request_id(stack: Stack) -> None:
    name = "find-me-in-the-log"
    stack.client.get("/version", headers={"x-request-id": name}).raise_for_status()

    def entries() -> list[dict[str, object]]:
        lines = stack.compose("logs", "--no-color", "--no-log-prefix", "nginx").splitlines()
        return [json.loads(line) for line in lines if name in line]

    assert [entry["request_id"] for entry in until("its line", entries, 60)] == [name]
