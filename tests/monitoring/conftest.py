"""Debian's own Prometheus and Alertmanager, run for a test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.monitoring.waiting import held_port, until


def program(*names: str) -> str:
    """The first of these programs that is there; skips without any."""
    found = next(filter(None, map(shutil.which, names)), None)
    return found or pytest.skip(
        f"no {names[0]}: apt-get install prometheus prometheus-alertmanager"
    )


@contextmanager
def server(*command: str, log: Path) -> Iterator[httpx.Client]:
    """A server on a port of its own that answers `/-/ready`, ended afterwards."""
    with held_port() as port, log.open("w") as out:
        where = f"--web.listen-address=127.0.0.1:{port}"
        with subprocess.Popen([*command, where], stdout=out, stderr=out) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
                    until(f"{command[0]} is ready", lambda: _ready(client), 60)
                    yield client
            finally:
                process.terminate()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[httpx.Client]:
    command = (
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
    )
    with server(*command, log=folder / "prometheus.log") as client:
        yield client


@contextmanager
def alertmanager(config: Path, folder: Path) -> Iterator[httpx.Client]:
    command = (
        program("prometheus-alertmanager", "alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        "--cluster.listen-address=",
    )
    with server(*command, log=folder / "alertmanager.log") as client:
        yield client
