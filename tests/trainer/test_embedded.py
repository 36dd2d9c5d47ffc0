"""The trainer that `python -m services` keeps beside it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from govor.config import Settings
from govor.database import migrate
from services.embedded import Trainer, trains
from tests.trainer.workers import HOME, alive, children, eventually

KEEPER = """
import time
from govor.config import Settings
from services.embedded import Trainer
Trainer(Settings()).start()
time.sleep(1000)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(HOME)
    monkeypatch.setenv("GOVOR_VAR", str(tmp_path))
    monkeypatch.setenv("GOVOR_METRICS_PORT", "0")
    settings = Settings()
    migrate(settings.database)
    return settings


@pytest.fixture
def trainer(settings: Settings) -> Iterator[Trainer]:
    trainer = Trainer(settings)
    trainer.start()
    yield trainer
    trainer.stop()


def worker_of(pid: int) -> int:
    """The trainer among the children of a process."""
    return eventually(lambda: [child for child in children(pid) if is_trainer(child)])[0]


def is_trainer(pid: int) -> bool:
    try:
        return b"\0trainer\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_it_comes_back_when_it_has_died_and_ends_when_it_is_told(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.embedded._STOP_SECONDS", 60.0)  # then it would be killed
    first = worker_of(os.getpid())
    os.kill(first, signal.SIGKILL)
    eventually(lambda: not alive(first))
    second = worker_of(os.getpid())
    since = time.monotonic()
    trainer.stop()
    assert time.monotonic() - since < 60
    assert not alive(second)


def test_it_ends_with_the_process_that_keeps_it(settings: Settings) -> None:
    keeper = subprocess.Popen([sys.executable, "-c", KEEPER], cwd=HOME)
    worker = worker_of(keeper.pid)
    listening = settings.var_folder / "broker" / "control" / "cpu.exchange"
    eventually(listening.exists)
    keeper.kill()
    keeper.wait()
    eventually(lambda: not alive(worker))


def test_it_is_kept_where_it_is_installed_and_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trains(Settings())
    assert not trains(Settings(trainer_embedded=False))
    monkeypatch.setattr("services.embedded.find_spec", lambda name: name != "sklearn" or None)
    assert not trains(Settings())
