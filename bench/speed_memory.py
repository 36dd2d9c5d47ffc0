"""Each service alone: how soon it is ready, and the memory of its process tree.

Memory is the proportional set size (Linux, `/proc/<pid>/smaps_rollup`): pages that processes share
are divided among them, so the sum over a tree counts every page once.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.alone import service

# Megabytes; seconds.
MEMORY = {"nlu": 180, "gateway": 180, "generator": 220, "tts": 220, "stt": 400}
READY = 3.0


def main(arguments: list[str]) -> int:
    """Prints a row a service; 1 when a bar is missed."""
    missed = 0
    print(f"{'service':<10} {'ready s':>8} {'bar':>5} {'PSS MB':>8} {'bar':>5}")
    for name, bar in MEMORY.items():
        seconds, megabytes = measure(name)
        missed += seconds > READY or megabytes > bar
        print(f"{name:<10} {seconds:>8.2f} {READY:>5.1f} {megabytes:>8.0f} {bar:>5}")
    return 1 if missed else 0


def measure(name: str) -> tuple[float, float]:
    """Seconds from the start of the process to `/readyz` 200, and its tree's megabytes then."""
    # The gateway alone has no siblings to be ready; it answers when it can degrade.
    path = "healthz" if name == "gateway" else "readyz"
    with service(name, ready=path) as served:
        return served.ready_seconds, tree_megabytes(served.pid)


def tree_megabytes(pid: int) -> float:
    """Proportional set size of a process and all its descendants, in 10^6 bytes."""
    own = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            own = int(line.split()[1]) * 1024
    children = Path(f"/proc/{pid}/task").glob("*/children")
    pids = [int(child) for file in children for child in file.read_text().split()]
    return own / 1e6 + sum(tree_megabytes(child) for child in pids)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
