"""`python -m trainer.recipes`: all bundled model versions again, one recipe after another.

Each runs in a process of its own, as it would be called by hand; the two that train take most of
an hour of one core.
"""

from __future__ import annotations

import subprocess
import sys

RECIPES = (
    ("vad", "--out", "models"),
    ("voices", "--out", "models"),
    ("phrases", "--out", "models"),
    ("nlu_trunk", "--out", "models/nlu/1"),
    ("generator", "--out", "models/generator/1"),
)


def main() -> None:
    for name, *arguments in RECIPES:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, "-m", f"trainer.recipes.{name}", *arguments], check=True)


if __name__ == "__main__":
    main()
