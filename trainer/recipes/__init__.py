"""One file a trainable model; those that a job may ask for, by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from trainer.context import Run


@dataclass(frozen=True)
class Entry:
    """Where a recipe's `Run` is. `gpu`: whether it trains on its task's device; the others train on
    the CPU, whatever there is."""

    run: str
    gpu: bool = False


ENTRIES = {"intents": Entry("trainer.recipes.intents:retrain")}
"""The recipes by name; what a caller may ask of them is in `govor.jobs.RECIPES`."""


def load(run: str) -> Run:
    """The function of an entry. Called only in the process that trains: recipes import torch."""
    module, _, name = run.partition(":")
    found: Run = getattr(importlib.import_module(module), name)
    return found
