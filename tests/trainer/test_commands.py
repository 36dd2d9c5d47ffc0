"""`python -m trainer` as an operator types it."""

import re
import shutil
import signal
import subprocess
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from govor.jobs import RECIPES
from govor.schemas.jobs import State
from tests.trainer.recipes import OWN, RECIPE
from tests.trainer.workers import HOME, Shop, alive, eventually
from trainer import commands
from trainer.__main__ import main
from trainer.recipes import ENTRIES


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setitem(RECIPES, "patient", RECIPE)
    shop = Shop(tmp_path)
    yield shop
    shop.close()


def say(shop: Shop, *arguments: str) -> tuple[int, str]:
    """A command's status, and what it wrote."""
    process: subprocess.Popen[bytes] = shop.start(*arguments)
    status = process.wait(120)
    return status, shop.said_by(process)


def named(shop: Shop, asking: subprocess.Popen[bytes]) -> str:
    """The job that a command says it has asked for."""
    said = eventually(lambda: re.search(r"^job (\w+)\n", shop.said_by(asking), re.M))
    return said[1]


def test_a_training_is_followed_here_and_now(shop: Shop) -> None:
    status, said = say(shop, "train", "patient", "domain=support", "seconds=0.5", "--now")
    assert status == 0, said
    assert "it begins" in said
    assert '"ran": true' in said
    status, said = say(shop, "train", "patient", "then=fail", "--now")
    assert status == 1
    assert "failed: ValueError: there are no rows" in said
    status, said = say(shop, "jobs")
    assert [line.split()[3] for line in said.splitlines()] == ["failed", "done"]
    assert said.count("  patient  ") == said.count("  by command line") == 2


def test_what_ran_here_has_cleared_up_when_the_command_ends(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*given: Any, **more: Any) -> None:
        time.sleep(2)
        shutil.rmtree(*given, **more)

    monkeypatch.chdir(HOME)
    monkeypatch.setitem(ENTRIES, "patient", OWN["patient"])
    monkeypatch.setattr("trainer.execution.shutil", SimpleNamespace(rmtree=slowly))
    asked = Namespace(recipe="patient", settings=[], queue=None, priority=5, now=True)
    assert commands.train(shop.settings, asked) == 0
    assert list((shop.settings.var_folder / "runs").iterdir()) == []


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """A shell that starts the tests in the background has all that they start ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_a_training_that_runs_here_ends_with_the_command(shop: Shop) -> None:
    asking = shop.start("train", "patient", "seconds=60", "--now")
    identity = named(shop, asking)
    shop.until(identity, "running")
    training = shop.training(asking)
    asking.send_signal(signal.SIGINT)
    assert asking.wait(60) == 130
    assert not alive(training)
    assert shop.job(identity).state == "cancelled"


def test_a_training_is_followed_while_a_worker_runs_it(shop: Shop) -> None:
    shop.start("worker")
    asking = shop.start("train", "patient", "seconds=60")
    identity = named(shop, asking)
    shop.until(identity, "running")
    assert say(shop, "cancel", identity) == (0, "its worker is told\n")
    assert asking.wait(60) == 1
    assert shop.said_by(asking).endswith(" cancelled\n")
    state: State = shop.job(identity).state
    assert state == "cancelled"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("train", "alchemy"), "trainer: there is no recipe 'alchemy', but intents"),
        (("train", "intents", "sead=3"), "trainer: params.sead: Extra inputs are not permitted"),
        (("train", "intents", "--priority", "10"), "trainer: priority: "),
        (("train", "intents", "domain=nowhere"), "trainer: there is no domain 'nowhere'"),
        (
            ("schedule", "n", "* * * * *", "intents", "domain=.."),
            "trainer: there is no domain '..'",
        ),
        (("logs", "nobody"), "trainer: there is no job 'nobody'"),
        (("schedule", "nightly", "@daily", "intents"), "trainer: '@daily' is no cron line: "),
    ],
)
def test_what_is_asked_wrongly_is_one_line(
    shop: Shop, arguments: tuple[str, ...], line: str
) -> None:
    status, said = say(shop, *arguments)
    assert status == 2
    assert said.startswith(line)
    assert said.count("\n") == 1


def test_the_words_of_a_training_stand_anywhere(shop: Shop) -> None:
    status, said = say(shop, "train", "patient", "a=1", "--detach", "domain=support", "b=2")
    assert status == 0, said
    found = shop.job(said.split()[1])
    assert (found.domain, found.params) == ("support", {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("jobs", "--limit", "-1"), "--limit: '-1'"),
        (("jobs", "--limit", "0"), "--limit: '0'"),
        (("jobs", "--limit", "many"), "--limit: 'many'"),
        (("jobs", "--state", "lost"), "--state: invalid choice: 'lost'"),
        (("jobs", "a=1"), "unrecognized arguments: a=1"),
        (("train", "patient", "--soon", "a=1"), "unrecognized arguments: --soon a=1"),
    ],
)
def test_options_that_there_are_not_are_named(
    arguments: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert word in said
    assert "Traceback" not in said


def test_schedules_are_added_listed_and_removed(shop: Shop) -> None:
    added = say(shop, "schedule", "nightly", "0 3 * * *", "intents", "domain=support", "seed=4")
    assert added == (0, 'nightly  0 3 * * * UTC  intents support {"seed": 4}\n')
    assert say(shop, "schedule") == added
    assert say(shop, "schedule", "--remove", "nightly") == (0, "")
    assert say(shop, "schedule", "--remove", "nightly")[0] == 2
