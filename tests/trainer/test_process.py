"""The process that trains, without a worker."""

import socket
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.workers import HOME
from trainer.process import Child

TASK = {"id": "a", "recipe": "patient", "params": {"seconds": 0.5}}


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Child:
    """Made in the moment in which kombu closes a connection that was lost."""
    monkeypatch.chdir(HOME)
    socket.setdefaulttimeout(0.01)
    try:
        return Child(tmp_path)
    finally:
        socket.setdefaulttimeout(None)


def test_it_is_heard_to_its_end(child: Child, tmp_path: Path) -> None:
    order = {"entry": "tests.trainer.recipes:patient", "task": TASK, "queue": "cpu"}
    child.send(order | {"folder": str(tmp_path)})
    heard: list[dict[str, Any]] = []
    while not child.ended:
        heard += child.hear(1.0)
    status, _ = child.kill()
    assert status == 0
    assert {"device": "cpu", "reason": None} in heard
    assert {"log": "it begins"} in heard
    (result,) = [message["result"] for message in heard if "result" in message]
    assert result["ran"] is True
