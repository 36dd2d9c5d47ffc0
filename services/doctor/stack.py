"""The other containers of the stack: whether each is well, and what every replica serves.

A name asked directly answers with one of its replicas. Prometheus scrapes all of them and shares
networks that this container does not, so its word is taken, and names are asked without it.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import httpx

from govor.config import Settings
from govor.errors import GovorError
from govor.repository import Repository, VersionBroken
from govor.routes import ROUTES, SERVICES
from services.doctor.finding import Finding, get, trains

PROMETHEUS = "http://prometheus:9090"
DOOR = "nginx:8080"
ADMIN_KEY = Path("/run/secrets/admin.key")
SCRAPED = (
    *SERVICES,
    *("worker", "beat", "redis-exporter", "nginx-exporter", "node-exporter"),
    *("prometheus", "alertmanager"),
)
"""Jobs that Prometheus must know, or none of their replicas is there."""

CONTAINERS = {
    "nginx": ":8081/healthz",
    "worker": ":9000/metrics",
    "beat": ":9000/metrics",
    "redis-exporter": ":9121/metrics",
    "node-exporter": ":9100/metrics",
    "alertmanager": ":9093/-/healthy",
}
"""Of `compose.yaml`, as far as the gateway's networks go: where each tells that it is well."""

FRESH = "{0} and timestamp({0}) > time() - 30"
"""Three scrapes: after a start of its own Prometheus tells of replicas that are gone."""

PATIENCE_SECONDS, PAUSE_SECONDS = 30.0, 1.0
"""A new version, or a new replica, needs 5 s to be loaded or found and 10 s to be scraped. One that
left is missed for 25 s."""


def containers(settings: Settings) -> Iterator[Finding]:
    """The other containers of the stack, where this is one of them."""
    if not (Path("/.dockerenv").exists() and _address("gateway")):
        return
    if find_spec("onnxruntime") is None:
        where = f"models run in {', '.join(ROUTES.values())}, trainings in worker"
        said = f"{where}: docker compose exec nlu python -m services doctor"
        yield Finding("ok", "devices", said)
    yield from look(settings)


def look(settings: Settings) -> Iterator[Finding]:
    """All of it by Prometheus's word, or what can be reached without that."""
    try:
        yield from _settled(settings)
        yield _nginx() if trains() else _reached("nginx")
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        lost = "one replica of each service was asked, and nobody for nginx-exporter"
        yield Finding("fail", "prometheus", f"does not answer ({type(error).__name__}): {lost}")
        yield from map(_reached, CONTAINERS)
    yield _grafana()


def _settled(settings: Settings) -> list[Finding]:
    """What Prometheus sees. What is wrong is looked at until it has been wrong for long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while True:
        targets = _targets()
        found = [*_scraped(targets), *_serving(settings, targets)]
        if all(finding.state == "ok" for finding in found) or time.monotonic() > end:
            return found
        time.sleep(PAUSE_SECONDS)


def _ask(metric: str) -> list[tuple[dict[str, str], float]]:
    """The labels and values of a metric, of every replica."""
    answer = get(f"{PROMETHEUS}/api/v1/query", {"query": FRESH.format(metric)}).raise_for_status()
    rows = answer.json()["data"]["result"]
    return [(row["metric"], float(row["value"][1])) for row in rows]


def _targets() -> dict[str, dict[str, bool]]:
    """Of every job its replicas, and whether Prometheus reaches them."""
    targets: dict[str, dict[str, bool]] = {job: {} for job in SCRAPED}
    for labels, value in _ask("up"):
        targets.setdefault(labels["job"], {})[labels["instance"]] = value == 1
    return targets


def _scraped(targets: dict[str, dict[str, bool]]) -> Iterator[Finding]:
    reached = [f"{job} {n}" for job, found in targets.items() if (n := sum(found.values()))]
    yield Finding("ok", "prometheus", f"answers, and reaches {', '.join(reached) or 'nothing'}")
    for job, found in targets.items():
        away = [instance for instance, up in found.items() if not up]
        if away:
            said = f"Prometheus does not reach {len(away)} of {len(found)}: {_list(away)}"
            yield Finding("fail", job, said)
        elif not found:
            yield Finding("fail", job, f"Prometheus finds none: docker compose ps --all {job}")


def _serving(settings: Settings, targets: dict[str, dict[str, bool]]) -> Iterator[Finding]:
    """Which version of a model each replica has loaded, beside the one that is deployed."""
    loaded: dict[tuple[str, str], dict[str, int]] = {}
    for labels, _ in _ask("model_info"):
        replicas = loaded.setdefault((labels["job"], labels["model"]), {})
        replicas[labels["instance"]] = int(labels["version"])
    for (job, model), versions in sorted(loaded.items()):
        running = {instance for instance, up in targets.get(job, {}).items() if up}
        yield _replicas(job, model, versions, running, _champion(settings, model))
    jobs = {job for job, _ in loaded}
    for job in ROUTES.values():
        if job not in jobs and any(targets[job].values()):
            yield Finding("fail", job, "no replica has loaded a model")


def _replicas(
    job: str, model: str, versions: dict[str, int], running: set[str], champion: int | None
) -> Finding:
    total = len(running | set(versions))
    counts = sorted(Counter(versions.values()).items(), reverse=True)
    said = ", ".join(f"version {version} on {n} of {total}" for version, n in counts)
    behind = [one for one, version in versions.items() if champion not in (version, None)]
    without = running - set(versions)
    if behind:
        said += f"; not version {champion}, which is deployed: {_list(behind)}"
    if without:
        said += f"; none on {_list(without)}"
    wrong = behind or without or len(counts) > 1
    return Finding("fail" if wrong else "ok", job, f"{model} {said}")


def _champion(settings: Settings, model: str) -> int | None:
    """None where the repository cannot tell: `models` says so."""
    with suppress(GovorError, VersionBroken):
        repository = Repository(settings.repository_folder, settings.bundled_folder)
        return repository.deployment(model).champion
    return None


def _nginx() -> Finding:
    """By the word of its exporter, which shares a network with it."""
    if any(value == 1 for _, value in _ask("nginx_up")):
        return Finding("ok", "nginx", "answers nginx-exporter; no network of it is here")
    return Finding("fail", "nginx", "does not answer nginx-exporter")


def _reached(name: str) -> Finding:
    if not _address(name):
        return Finding("fail", name, "does not run, or not on this network")
    try:
        well = get(f"http://{name}{CONTAINERS[name]}").is_success
    except httpx.HTTPError:
        well = False
    return Finding("ok" if well else "fail", name, "answers" if well else "does not answer")


def _grafana() -> Finding:
    """Through nginx: no other way leads there from here."""
    try:
        key = ADMIN_KEY.read_text(encoding="utf-8").strip()
    except OSError:
        return Finding("warn", "grafana", "not looked at: only the gateway has the admin key")
    try:
        answer = _through_door("/grafana/api/health", key)
    except httpx.HTTPError:
        return Finding("fail", "grafana", "not looked at: nginx does not answer")
    if answer.status_code in (401, 403):
        said = "not looked at: the admin key of this container is none of the keys any more"
        return Finding("warn", "grafana", said)
    if not answer.is_success:
        said = f"does not answer nginx ({answer.status_code}): docker compose ps --all grafana"
        return Finding("fail", "grafana", said)
    return Finding("ok", "grafana", "answers through nginx")


def _through_door(path: str, key: str) -> httpx.Response:
    """nginx speaks TLS where it has a certificate, which is for another name than this."""
    answer = get(f"http://{DOOR}{path}", key=key)
    if answer.status_code == 308:
        return get(f"https://{DOOR}{path}", key=key, verify=False)
    return answer


def _address(name: str) -> str | None:
    with suppress(OSError):
        return socket.gethostbyname(name)
    return None


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
