"""What is well of the installation that the doctor runs in: a laptop's or one container's."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from govor.clients import SERVED
from govor.config import ConfigurationError, Settings
from govor.database import REVISION, read_api_keys, read_revision, transaction
from govor.domains import PackError, load_pack
from govor.errors import GovorError
from govor.keys import is_loopback, read_keys
from govor.repository import Repository, VersionBroken
from services.doctor.finding import Finding, State, get, trains

_NOT_WELL = ("not reached", "not ready", "away")
LITTLE_BYTES, NOTHING_BYTES = 2 << 30, 200 << 20
SKEW_SECONDS = 2.0
TORCH_SECONDS = 60.0
_TORCH_SEES = """\
import torch
seen = torch.version.cuda is not None and torch.cuda.is_available()
print(torch.cuda.get_device_name() if seen else "")
"""
_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "celery",
    "torch",
)


def versions(_: Settings) -> Iterator[Finding]:
    installed = [f"{name} {found}" for name in _PACKAGES if (found := _version(name))]
    yield Finding("ok", "govor", f"{version('govor')} on Python {platform.python_version()}")
    yield Finding("ok", "packages", ", ".join(installed))


def devices(settings: Settings) -> Iterator[Finding]:
    """On what models can run, each tried with a model of ours, and whether that was asked for."""
    ours = getattr(os, "sched_getaffinity", None)  # Linux has it, macOS does not
    cores = len(ours(0)) if ours else os.cpu_count()
    if not (_version("onnxruntime") or _version("onnxruntime-gpu")):
        yield Finding("ok", "devices", f"{cores} cores; no model runs here (no onnxruntime)")
        return
    from govor.onnx import ort, providers

    model = next(settings.bundled_folder.glob("*/*/*.onnx"), None)
    if model is None:
        yield Finding("warn", "devices", f"{cores} cores; there is no model to try them with")
        return
    ort.set_default_logger_severity(4)  # a provider that cannot be used is told below
    usable = []
    for provider in providers("gpu"):
        name = provider.removesuffix("ExecutionProvider")
        with suppress(Exception):
            if provider in ort.InferenceSession(model, providers=[provider]).get_providers():
                yield Finding("ok", "devices", f"models can run on {name} ({cores} cores here)")
                usable.append(name)
                continue
        yield Finding("warn", "devices", f"{name} is installed and cannot be used here")
    if settings.device == "gpu" and "CUDA" not in usable:
        yield Finding("warn", "devices", "GOVOR_DEVICE is gpu, and models run on the CPU")


def trainings(settings: Settings) -> Iterator[Finding]:
    """Whether torch, where it is installed, sees the GPU that a training may ask for.

    To import it takes seconds, and the GPU's memory for as long as a process lives: a child does.
    """
    torch = _version("torch")
    if torch is None:
        return
    if torch.endswith("+cpu"):
        said = f"trainings here run on the CPU: torch {torch} is a build for it"
    else:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _TORCH_SEES],
                capture_output=True,
                text=True,
                timeout=TORCH_SECONDS,
            )
        except subprocess.TimeoutExpired:
            yield Finding("warn", "devices", f"torch {torch} did not start in {TORCH_SECONDS:g} s")
            return
        if done.returncode != 0:
            why = (done.stderr.splitlines() or [f"code {done.returncode}"])[-1]
            yield Finding("warn", "devices", f"torch {torch} does not start: {why}")
            return
        if name := done.stdout.strip():
            yield Finding("ok", "devices", f"trainings can run on {name} (torch {torch})")
            return
        said = f"trainings here run on the CPU: torch {torch} sees no GPU"
    yield Finding("warn" if settings.device == "gpu" else "ok", "devices", said)


def ports(settings: Settings) -> Iterator[Finding]:
    for port, path in ((settings.port, "/version"), (settings.metrics_port, "/metrics")):
        url = _url(settings, port)
        if said := _ours(url + path):
            yield Finding("ok", "ports", f"{port}: {said}")
        elif _listens(url):
            who = _listener(port) or "another program"
            yield Finding(
                "fail", "ports", f"{port} is taken by {who}, which is not Govor, or hangs"
            )
        else:
            yield Finding("ok", "ports", f"{port} is free")


def disk(settings: Settings) -> Iterator[Finding]:
    """Space where something is written."""
    places = [settings.var_folder, settings.repository_folder, settings.var_folder / "spool"]
    for place in dict.fromkeys(places):
        if not place.is_dir():
            if place == settings.var_folder:
                yield Finding("ok", "disk", f"{place} is not there yet: made at the first start")
            continue
        free = shutil.disk_usage(place).free
        state: State = "fail" if free < NOTHING_BYTES else "warn" if free < LITTLE_BYTES else "ok"
        yield Finding(state, "disk", f"{place}: {free / (1 << 30):.1f} GiB free")


def keys(settings: Settings) -> Iterator[Finding]:
    known = 0
    if settings.keys_file is not None:
        try:
            rows = read_keys(settings.keys_file)
        except ConfigurationError as error:
            yield Finding("fail", "keys", str(error))
            return
        known = len(rows)
        admins = sum("admin" in row.scopes for row in rows)
        yield Finding("ok", "keys", f"{known} in {settings.keys_file}, {admins} with scope admin")
    elif is_loopback(settings.host):
        yield Finding("ok", "keys", "no file of keys; without any, this machine alone may call")
    else:
        yield Finding("warn", "keys", f"GOVOR_HOST={settings.host} needs a key: GOVOR_KEYS_FILE")
    secrets = (settings.keys_file, settings.internal_key_path, settings.subject_secret_path)
    for file in filter(None, secrets):
        with suppress(FileNotFoundError):
            if file.stat().st_mode & 0o007:
                yield Finding("warn", "keys", f"everybody here can read {file}: chmod 600 {file}")


def database(settings: Settings) -> Iterator[Finding]:
    url = make_url(settings.database)
    where = f"{url.get_backend_name()} {url.host or url.database}"
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        yield Finding("ok", "database", f"{where} is not there yet: made at the first start")
        return
    try:
        with transaction(settings.database) as connection:
            revision = read_revision(connection)
            stored = len(read_api_keys(connection)) if revision == REVISION else 0
            before = datetime.now(UTC)
            now = connection.execute(text("SELECT CURRENT_TIMESTAMP")).scalar()
    except (SQLAlchemyError, OSError) as error:
        yield Finding("fail", "database", f"{where} does not answer: {type(error).__name__}")
        return
    if revision != REVISION:
        needed = f"this code needs {REVISION}: python -m services init"
        yield Finding("fail", "database", f"{where}: revision {revision}, {needed}")
        return
    yield Finding("ok", "database", f"{where}: revision {revision}, {stored} keys in its table")
    if isinstance(now, datetime):  # PostgreSQL's; SQLite has the clock of this machine
        skew = abs((now - before).total_seconds())
        state: State = "ok" if skew < SKEW_SECONDS else "warn"
        yield Finding(state, "clock", f"{skew:.1f} s from the database's (leases go by both)")


def broker(settings: Settings) -> Iterator[Finding]:
    if not _version("celery"):
        yield Finding("ok", "broker", "not used here: celery is not installed")
        return
    from govor.jobs import unheard

    if settings.broker_url is None and not (settings.var_folder / "broker").is_dir():
        yield Finding("ok", "broker", "its folder is not there yet: made with the first job")
        return
    where = f"Redis at {make_url(settings.broker_url).host}" if settings.broker_url else "a folder"
    try:
        waiting = sum(unheard(settings, queue) for queue in settings.trainer_queues)
    except Exception as error:  # kombu raises what each transport raises
        yield Finding("fail", "broker", f"{where} does not answer: {type(error).__name__}")
        return
    yield Finding("ok", "broker", f"{where} answers: {waiting} rings that no worker heard yet")


def packs(settings: Settings) -> Iterator[Finding]:
    names = sorted(file.parent.name for file in settings.domains_folder.glob("*/domain.yaml"))
    for name in names:
        try:
            load_pack(settings.domains_folder / name)
        except PackError as error:
            yield Finding("fail", "packs", f"{name}: {str(error).splitlines()[0]}")
        else:
            yield Finding("ok", "packs", f"{name} is sound")
    if settings.domain not in names:
        yield Finding("fail", "packs", f"GOVOR_DOMAIN={settings.domain}: there is no such pack")


def models(settings: Settings) -> Iterator[Finding]:
    """Whether what is deployed is whole on this disk, digest by digest."""
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    for name in repository.models():
        try:
            champion = repository.deployment(name).champion
            if champion is None:
                yield Finding("warn", "models", f"{name}: no version is deployed")
                continue
            repository.open(name, champion)
        except (GovorError, VersionBroken) as error:
            yield Finding("fail", "models", f"{name}: {error}")
        else:
            yield Finding("ok", "models", f"{name}: version {champion} is deployed, and whole")


def services(settings: Settings) -> Iterator[Finding]:
    """What the service here says of all its parts, and whether what serves is what is deployed.

    The gateway, alone or in the embedded mode, speaks of the four others."""
    if trains():
        yield Finding("ok", "services", "none in this container, which is for trainings")
        return
    url = _url(settings, settings.port)
    try:
        parts = get(f"{url}/readyz").json()["parts"]
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        yield Finding("warn", "services", f"nothing of ours answers at {url}: is it started?")
        return
    repository = Repository(settings.repository_folder, settings.bundled_folder)
    for name, part in parts.items():
        said = part["detail"]
        served = {model: int(number) for model, number in SERVED.findall(f"{name} {said}")}
        behind = [m for m, number in served.items() if repository.deployment(m).champion != number]
        if not part["ready"] or said in _NOT_WELL:
            yield Finding("fail", name, said)
        elif behind:
            yield Finding("warn", name, f"{said}; another version of {behind[0]} is deployed")
        else:
            yield Finding("ok", name, said)


def clock(_: Settings) -> Iterator[Finding]:
    now = time.time()
    before = now < Path(__file__).stat().st_mtime
    said = datetime.fromtimestamp(now, UTC).isoformat(" ", "seconds")
    wrong = ", which is before this code was installed: set the clock"
    yield Finding("fail" if before else "ok", "clock", said + wrong * before)


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _url(settings: Settings, port: int) -> str:
    """Where this machine reaches what listens on the settings' address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _ours(url: str) -> str | None:
    """What of ours answers at a URL."""
    with suppress(httpx.HTTPError, ValueError, LookupError, TypeError):
        answer = get(url)
        if url.endswith("/metrics"):
            return "metrics" if answer.text.startswith("# HELP ") else None
        told = answer.json()
        if told["name"] == "govor":
            return f"the {told['service']}, Govor {told['version']}"
    return None


def _listens(url: str) -> bool:
    address = httpx.URL(url)
    with suppress(OSError), socket.create_connection((address.host, address.port or 80), 1.0):
        return True
    return False


def _listener(port: int) -> str | None:
    """The program that listens on a port, where Linux lets us see it."""
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        if (file := Path("/proc/net") / table).exists()
        for line in file.read_text().splitlines()[1:]
    ]
    sockets = {
        f"socket:[{row[9]}]"
        for row in rows
        if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
    }
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(os.readlink(file) in sockets for file in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None
