"""A stack that `docker compose up` brought up from a clone, as its operator and its callers see it.

Everything is asked from outside: through the published port, by the engine's own commands, and by
pids of the host.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

HOME = Path(__file__).resolve().parents[2]
SPEECH = HOME / "examples" / "thank-you.flac"
PROJECT = "govor-test"
ONE_SHOTS = ("secrets", "init")

T = TypeVar("T")


def engine_or_skip() -> None:
    """Skips where no container engine answers."""
    if shutil.which("docker") is None:
        pytest.skip("no container engine: there is no docker command")
    asked = subprocess.run(["docker", "version"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"no container engine: {asked.stderr.strip()[:100]}")


def until(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """What `look` gives once it is true; an error of transport or state counts as not yet."""
    end = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except (httpx.HTTPError, subprocess.CalledProcessError, KeyError, IndexError) as error:
            last = error
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds:g} s: {what} ({last})")


@dataclass
class Stack:
    """One compose project in `folder`, published on `port`."""

    folder: Path
    port: int
    client: httpx.Client = field(init=False)
    _logs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Without a limit of requests: one key sends all of the load here.
        settings = f"GOVOR_PORT={self.port}\nGOVOR_RATE_LIMIT_PER_MINUTE=0\n"
        (self.folder / ".env").write_text(settings)
        self.client = self._client({})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self, *options: str, seconds: float = 2400) -> None:
        self.compose("up", "--detach", "--wait", *options, seconds=seconds)
        self.client = self._client({"authorization": f"Bearer {self.admin_key()}"})

    def down(self, *options: str) -> None:
        self.client.close()
        self._logs.append(self.compose("logs", "--no-color"))
        self.compose("down", "--timeout", "30", *options)

    def logs(self) -> str:
        """All that was written, also before a `down`, which takes the logs away."""
        return "".join([*self._logs, self.compose("logs", "--no-color")])

    def admin_key(self) -> str:
        """By the command that the README gives."""
        return self.compose("exec", "-T", "gateway", "cat", "/run/secrets/admin.key").strip()

    def compose(self, *arguments: str, seconds: float = 900, given: str | None = None) -> str:
        """Standard output of a `docker compose` command, which must succeed."""
        done = subprocess.run(
            ["docker", "compose", "--project-name", PROJECT, *arguments],
            cwd=self.folder,
            input=given,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stderr[-4000:]}"
        return done.stdout

    def sql(self, statement: str) -> None:
        client = ("psql", "--username", "govor", "--dbname", "govor", "--quiet")
        self.compose("exec", "-T", "postgres", *client, "--set=ON_ERROR_STOP=1", given=statement)

    def containers(self) -> list[dict[str, Any]]:
        """What the engine says of each container that runs."""
        lines = self.compose("ps", "--format", "json").splitlines()
        return [json.loads(line) for line in lines]

    def services(self) -> list[str]:
        names = self.compose("config", "--services").split()
        return sorted(name for name in names if name not in ONE_SHOTS)

    def unhealthy(self) -> list[str]:
        """The services that do not run, or whose health check, if they have one, does not pass."""
        running = (one for one in self.containers() if one["State"] == "running")
        healthy = {one["Service"] for one in running if one["Health"] in ("healthy", "")}
        return [name for name in self.services() if name not in healthy]

    def wait_until_healthy(self, seconds: float = 300) -> float:
        """Seconds that it took."""
        started = time.monotonic()
        until(
            "all containers healthy",
            lambda: not self.unhealthy() and self.client.get("/readyz").status_code == 200,
            seconds,
        )
        return time.monotonic() - started

    def inspect(self, service: str, form: str, number: int = 0) -> str:
        name = self.compose("ps", "--quiet", service).split()[number]
        return engine("inspect", "--format", form, name).strip()

    def kill(self, service: str) -> None:
        """Kills the container's main process by its pid on the host: `docker kill` would be a
        manual stop, which no restart policy follows."""
        os.kill(int(self.inspect(service, "{{.State.Pid}}")), signal.SIGKILL)

    def prometheus(self, query: str) -> list[dict[str, Any]]:
        """The result of an instant query, through the public door."""
        answer = self.client.get("/prometheus/api/v1/query", params={"query": query})
        answer.raise_for_status()
        result: list[dict[str, Any]] = answer.json()["data"]["result"]
        return result

    def alerts(self) -> list[dict[str, Any]]:
        """What Alertmanager holds."""
        command = ("amtool", "--alertmanager.url=http://localhost:9093", "alert", "query")
        found: list[dict[str, Any]] = json.loads(
            self.compose("exec", "-T", "alertmanager", *command, "-o", "json")
        )
        return found

    def say(self, text: str, **fields: Any) -> httpx.Response:
        body = {"text": text, "language": "en", "reply": ["text"], **fields}
        return self.client.post("/v1/converse", json=body)

    def speak(self, **fields: str) -> httpx.Response:
        """One spoken turn: a recorded "thank you"."""
        recording = {"audio": (SPEECH.name, SPEECH.read_bytes(), "audio/flac")}
        return self.client.post(
            "/v1/converse",
            files=recording,
            data={"language": "en", "reply": ["text", "audio"], **fields},
        )

    def train(self, **body: Any) -> str:
        """The id of a training that was accepted."""
        answer = self.client.post("/v1/trainings", json={"recipe": "intents", **body})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def job(self, job_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/v1/trainings/{job_id}")
        answer.raise_for_status()
        job: dict[str, Any] = answer.json()
        return job

    def wait_for_job(self, job_id: str, seconds: float = 900) -> dict[str, Any]:
        ended = ("done", "failed", "cancelled", "dead")

        def look() -> dict[str, Any] | None:
            job = self.job(job_id)
            return job if job["state"] in ended else None

        return until(f"job {job_id} ended", look, seconds)

    def _client(self, headers: dict[str, str]) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=120, trust_env=False)


def engine(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@dataclass
class Seen:
    """What callers saw while something was broken."""

    accepted: list[tuple[str, str]] = field(default_factory=list)
    """Conversation and turn of each answer."""
    degraded: set[str] = field(default_factory=set)
    refused: dict[str, int] = field(default_factory=dict)
    """What was answered instead, and how often: `502 gateway_unavailable`, `no connection`."""
    shapeless: list[str] = field(default_factory=list)

    def note(self, answer: httpx.Response) -> None:
        if answer.status_code == 200:
            turn = answer.json()
            self.accepted.append((turn["conversation_id"], turn["turn_id"]))
            self.degraded |= set(turn["degraded"])
            return
        try:
            code = f"{answer.status_code} {answer.json()['error']['code']}"
        except (ValueError, KeyError, TypeError):
            self.shapeless.append(answer.text[:200])
            code = f"{answer.status_code} without shape"
        self.refused[code] = self.refused.get(code, 0) + 1

    def failed_to_connect(self) -> None:
        self.refused["no connection"] = self.refused.get("no connection", 0) + 1

    def __str__(self) -> str:
        parts = [f"{len(self.accepted)} turns answered"]
        if self.degraded:
            parts.append(f"degraded: {', '.join(sorted(self.degraded))}")
        parts += [f"{count} x {what}" for what, count in sorted(self.refused.items())]
        return "; ".join(parts)


@contextmanager
def talking(stack: Stack) -> Iterator[Seen]:
    """Spoken turns and horoscopes, one after the other, for as long as the block runs."""
    seen, stop = Seen(), threading.Event()

    def talk() -> None:
        turns: list[Callable[[], httpx.Response]] = [
            lambda: stack.speak(domain="horoscope"),
            lambda: stack.say("horoscope for leo", domain="horoscope", reply=["text", "audio"]),
        ]
        number = 0
        while not stop.is_set():
            try:
                seen.note(turns[number % 2]())
            except httpx.TransportError:
                seen.failed_to_connect()
            number += 1
            time.sleep(0.05)

    thread = threading.Thread(target=talk, name="talking")
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def basic(key: str) -> dict[str, str]:
    """The admin key as a browser sends it."""
    return {"authorization": f"Basic {base64.b64encode(f'admin:{key}'.encode()).decode()}"}
