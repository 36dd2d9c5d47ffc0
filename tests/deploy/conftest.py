"""The stack that all tests of `test_stack.py` share, and the table of what they did."""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.deploy.stack import HOME, Stack, engine_or_skip

ROWS = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture(scope="session")
def story(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """What was done and what happened: printed when all is over."""
    rows: list[tuple[str, str]] = []
    request.config.stash[ROWS] = rows
    return rows


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("the stack: what was done, what happened")
        width = max(len(done) for done, _ in rows)
        for done, happened in rows:
            terminalreporter.line(f"{done:<{width}} | {happened}")


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, story: list[tuple[str, str]]
) -> Iterator[Stack]:
    """A clone of what is committed, brought up from nothing and taken away again."""
    engine_or_skip()
    folder = tmp_path_factory.mktemp("clone") / "govor"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", f"file://{HOME}", folder], check=True)
    stack = Stack(folder, _port())
    # An image of an earlier run would be taken as it is.
    stack.down("--volumes", "--remove-orphans", "--rmi", "local")
    try:
        yield stack
    finally:
        save_logs(stack, HOME / "build" / "stack")
        stack.down("--volumes", "--remove-orphans")


def _port() -> int:
    """A free one below those that the system gives away: the engine takes it minutes later."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def save_logs(stack: Stack, folder: Path) -> None:
    """What the containers said, for whoever looks for the reason of a failure."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "compose.log").write_text(stack.compose("logs", "--no-color", "--timestamps"))
    (folder / "compose.ps").write_text(stack.compose("ps", "--all"))
