"""`python -m bench speed|quality [part ...]`: runs the benchmarks one after another.

Each is a module `bench/<kind>_<part>.py` whose `main(arguments)` prints a table with its bars and
returns 0, or 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path


def parts(kind: str) -> list[str]:
    """The parts that there is a benchmark of this kind for."""
    return sorted(
        p.stem.removeprefix(f"{kind}_") for p in Path(__file__).parent.glob(f"{kind}_*.py")
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("kind", choices=["speed", "quality"])
    parser.add_argument("parts", nargs="*", help="all of them when none is named")
    options, rest = parser.parse_known_args(arguments)
    chosen = options.parts or parts(options.kind)
    if unknown := set(chosen) - set(parts(options.kind)):
        parser.error(f"no {options.kind} benchmark of {', '.join(sorted(unknown))}")
    failed = []
    for part in chosen:
        print(f"\n== {options.kind}: {part}", flush=True)
        if importlib.import_module(f"bench.{options.kind}_{part}").main(rest):
            failed.append(part)
    print(f"\n{len(chosen) - len(failed)} met their bars, {len(failed)} did not {failed or ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
