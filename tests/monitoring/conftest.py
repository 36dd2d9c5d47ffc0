"""Debian's own Prometheus and Alertmanager, run for a test."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.monitoring.waiting import free_port, until


def program(*names: str) -> str:
    """The first of these programs that is there; skips without any."""
    found = next(filter(None, map(shutil.which, names)), None)
    return found or pytest.skip(
        f"no {names[0]}: apt-get install prometheus prometheus-alertmanager"
    )


@contextmanager
def server(*command: str, url: str, log: Path) -> Iterator[httpx.Client]:
    """A server that answers `/-/ready` at `url`, ended afterwards."""
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
                until(f"{command[0]} is ready", lambda: _ready(client), 30)
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
    url = f"http://127.0.0.1:{free_port()}"
    with server(
        program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        url=url,
        log=folder / "prometheus.log",
    ) as client:
        yield client


@contextmanager
def alertmanager(config: Path, folder: Path) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{free_port()}"
    with server(
        program("prometheus-alertmanager", "alertmanager"),
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
        url=url,
        log=folder / "alertmanager.log",
    ) as client:
        yield client
