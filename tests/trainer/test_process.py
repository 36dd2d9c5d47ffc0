"""The process that trains, without a worker."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.workers import HOME, alive
from trainer.process import Child

TASK = {"id": "a", "recipe": "patient"}


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """Made in the moment in which kombu closes a connection that was lost."""
    monkeypatch.chdir(HOME)
    socket.setdefaulttimeout(0.01)
    try:
        return Child(tmp_path)
    finally:
        socket.setdefaulttimeout(None)


def heard_to_its_end(child: Child, folder: Path, **params: Any) -> list[dict[str, Any]]:
    entry = {"run": "tests.trainer.recipes:patient"}
    order = {"entry": entry, "queue": "cpu", "folder": str(folder)}
    child.send(order | {"task": TASK | {"params": {"seconds": 0.5, **params}}})
    heard: list[dict[str, Any]] = []
    while not child.ended:
        heard += child.hear(1.0)
    return heard


def test_it_is_heard_to_its_end(child: Child, tmp_path: Path) -> None:
    heard = heard_to_its_end(child, tmp_path)
    status, _ = child.kill()
    assert status == 0
    assert {"device": "cpu", "reason": None} in heard
    assert {"log": "it begins"} in heard
    (result,) = [message["result"] for message in heard if "result" in message]
    assert result["ran"] is True


def test_what_it_left_behind_does_not_hold_its_end_up(child: Child, tmp_path: Path) -> None:
    heard = heard_to_its_end(child, tmp_path, then="escape")
    status, rest = child.kill()
    (left,) = [message["result"]["left"] for message in heard if "result" in message]
    assert alive(left), "its end was waited for"
    os.kill(left, signal.SIGKILL)
    assert (status, rest) == (0, ["and then"])
