"""`make run`: one process that says what to try, and leaves nothing behind on Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from services.embedded import _STOP_SECONDS
from tests.e2e.conftest import HOME
from tests.trainer.workers import alive, children

READY_SECONDS = 120  # 10 on a machine of one's own; tests share theirs
SETTINGS = {"GOVOR_PORT": "0", "GOVOR_METRICS_PORT": "0"}
# All that is written beside them: the doorbell, the database, the secrets, an empty spool.
WRITTEN = ["broker", "govor.db", "secrets", "spool"]


def below(pid: int) -> list[int]:
    """All processes below one."""
    return [found for child in children(pid) for found in (child, *below(child))]


def test_it_says_what_to_try_and_ends_cleanly(tmp_path: Path) -> None:
    since = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "services"],
        cwd=HOME,
        env=os.environ | SETTINGS | {"GOVOR_VAR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(5)]
        assert time.monotonic() - since < READY_SECONDS
        url = said[0].split("open ")[1].split()[0]
        assert all(line.startswith("  curl " + url) for line in said[1:])
        assert httpx.get(url, timeout=60).status_code == 200
        while not (tmp_path / "broker" / "control" / "cpu.exchange").exists():
            assert time.monotonic() - since < 2 * READY_SECONDS, "no trainer"
            time.sleep(0.1)
        others = below(process.pid)
        since = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
        out, err = process.communicate(timeout=60)
        took = time.monotonic() - since
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out) == (0, "")
    assert "Traceback" not in err, err
    assert "Fatal Python error" not in err, err
    assert "KeyboardInterrupt" not in err, err
    assert not [pid for pid in others if alive(pid)]
    # A trainer that needs longer than that is killed, and leaves what SQLite takes up again.
    killed = {"govor.db-shm", "govor.db-wal"} if took > _STOP_SECONDS else set()
    assert sorted({path.name for path in tmp_path.iterdir()} - killed) == WRITTEN
