"""Recipes of the tests, and `python -m tests.trainer.recipes`: the trainer that knows them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from govor.jobs import RECIPES, Recipe
from trainer.__main__ import main
from trainer.context import Context, Task
from trainer.recipes import ENTRIES, Entry


class AnyParams(BaseModel):
    model_config = ConfigDict(extra="allow")


RECIPE = Recipe("cpu", AnyParams)
OWN = {
    "patient": Entry("tests.trainer.recipes:patient", gpu=True),
    "modest": Entry("tests.trainer.recipes:patient"),  # the same, on the CPU alone
    "effect": Entry("tests.trainer.recipes:effect"),
}


def patient(task: Task, context: Context) -> dict[str, Any]:
    """Takes `seconds`, and until the file `until` is there; then does what `then` says."""
    params = task.params
    sys.stdout.write("it begins\n")
    steps = max(1, int(params.get("seconds", 0) * 10))
    for step in range(steps):
        context.progress(
            "wait", done=step / steps, epoch=step + 1, epochs=steps, loss=1 / (step + 1)
        )
        time.sleep(0.1)
    _wait_for(params.get("until"))
    match params.get("then"):
        case "fail":
            raise ValueError("there are no rows")
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "leave":
            os._exit(3)
        case "linger":
            subprocess.Popen(["sleep", "1000"])
        case "escape":  # out of the group, with the pipe of the log in its hands
            left = subprocess.Popen(["sleep", "60"], start_new_session=True)
            sys.stdout.write("and then")
            return {"ran": True, "left": left.pid}
        case "commit":
            context.log("before the effect")
            context.commit()
            context.log("it may")
            _wait_for(params.get("effect_until"))
            (Path(params["file"])).write_text("done")
    context.progress("over", done=1.0)
    context.log(f"it ran on {task.device}")
    return {"ran": True, "folder": str(context.folder), "pid": os.getpid()}


def _wait_for(file: str | None) -> None:
    """Until a test has made it."""
    while file is not None and not Path(file).exists():
        time.sleep(0.05)


def effect(task: Task, context: Context) -> dict[str, Any]:
    """An effect that must happen once: a row, without a key that would hide a second one."""
    with sqlite3.connect(task.params["ledger"], isolation_level=None, timeout=30) as ledger:
        ledger.execute("INSERT INTO attempt VALUES (?, ?)", (task.id, os.getpid()))
        steps = int(task.params["seconds"] * 10)
        for step in range(steps):
            context.progress("wait", done=step / steps)
            time.sleep(0.1)
        context.commit()
        ledger.execute("INSERT INTO granted VALUES (?, ?)", (task.id, os.getpid()))
        mine = "SELECT count(*) FROM effect WHERE job = ?"
        if not ledger.execute(mine, (task.id,)).fetchone()[0]:
            time.sleep(0.2)  # room for another attempt to come between
            ledger.execute("INSERT INTO effect VALUES (?, ?)", (task.id, os.getpid()))
        time.sleep(0.2)  # room for a worker to die between the effect and its report
    return {"by": os.getpid()}


if __name__ == "__main__":
    RECIPES.update(dict.fromkeys(OWN, RECIPE))
    ENTRIES.update(OWN)
    sys.exit(main(sys.argv[1:]))
