"""One file a trainable model; those that a job may ask for, by name."""

from __future__ import annotations

import importlib

from trainer.context import Run

ENTRIES = {"intents": "trainer.recipes.intents:retrain"}
"""Where each recipe's `Run` is; what a caller may ask of it is in `govor.jobs.RECIPES`."""


def load(entry: str) -> Run:
    """The function of an entry. Called only in the process that trains: recipes import torch."""
    module, _, name = entry.partition(":")
    found: Run = getattr(importlib.import_module(module), name)
    return found
