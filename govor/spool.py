"""What waits on disk for a database that is away: JSON lines, a file a batch, oldest first."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Record = dict[str, Any]

_DAY_SECONDS = 24 * 3600


class Spool:
    """A folder of batches. Several processes may share it: names are unique, files are whole.

    No fsync: what is written outlives the process, as a commit does (`PRAGMA synchronous`).
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._numbers = itertools.count()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._size_bytes = 0
        self.files()

    def write(self, records: Sequence[Record]) -> Path | None:
        """Keep a batch: its file, which is there until the database holds it.

        None when there is no room for it (or no disk).
        """
        data = "".join(json.dumps(record) + "\n" for record in records).encode()
        if self._size_bytes + len(data) > self.max_bytes:
            return None
        name = f"{time.time_ns():020d}-{os.getpid()}-{next(self._numbers)}"
        part = self.folder / f"{name}.part"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
            kept = part.rename(part.with_suffix(".jsonl"))
        except OSError as error:
            log.error("spool %s: %s", self.folder, error)
            part.unlink(missing_ok=True)
            return None
        self._size_bytes += len(data)
        return kept

    def files(self) -> list[Path]:
        """The batches, oldest first. Measures the folder on the way, and deletes what was set aside
        or left half-written more than a day ago: text lives no longer."""
        sizes: dict[Path, int] = {}
        for entry in os.scandir(self.folder):
            with contextlib.suppress(FileNotFoundError):  # another process has just loaded it
                file, stat = Path(entry.path), entry.stat()
                if file.suffix != ".jsonl" and stat.st_mtime < time.time() - _DAY_SECONDS:
                    file.unlink()
                else:
                    sizes[file] = stat.st_size
        self._size_bytes = sum(sizes.values())
        return sorted(file for file in sizes if file.suffix == ".jsonl")

    def read(self, file: Path) -> list[Record]:
        """The records of a batch; none when another process has just loaded it."""
        try:
            return [json.loads(line) for line in file.read_bytes().splitlines()]
        except FileNotFoundError:
            return []

    def remove(self, file: Path) -> None:
        """A batch that the database holds now."""
        file.unlink(missing_ok=True)

    def refuse(self, file: Path, why: object) -> None:
        """Set aside a batch that the database does not take, for a person to look at."""
        log.error("spool: %s is set aside: %s", file, why)
        file.rename(file.with_suffix(".refused"))
