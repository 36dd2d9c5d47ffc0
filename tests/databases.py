"""Real databases for tests: a SQLite file and a PostgreSQL server, which can be away."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


class Sqlite:
    """A file; it is away while another process holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "govor.db"
        self.url = f"sqlite:///{self.file}"

    def fresh(self) -> str:
        """The URL of an empty database."""
        return f"sqlite:///{self.folder}/{uuid4().hex}.db"

    @contextmanager
    def away(self) -> Iterator[None]:
        command = [sys.executable, "-c", LOCK, str(self.file)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            yield
            holder.communicate()


class Postgres:
    """Debian's server on a Unix socket in `folder`; as root it runs as the user `postgres`."""

    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"postgresql+psycopg://govor@/postgres?host={folder}"
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres")
        self._run("initdb", "--auth=trust", "--encoding=UTF8", "--username=govor", "--no-sync")

    def fresh(self) -> str:
        """The URL of an empty database: this one, emptied (a new one copies 7 MB)."""
        with psycopg.connect(host=str(self.folder), user="govor", dbname="postgres") as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url

    @contextmanager
    def away(self) -> Iterator[None]:
        """Stopped at once: connections are cut, and nobody listens until it starts again."""
        self.stop()
        yield
        self.start()

    def start(self) -> None:
        options = f"-F -c listen_addresses='' -c unix_socket_directories={self.folder}"
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def signal(self, number: int) -> None:
        """To the server, and then to each of its processes; one may end meanwhile."""
        server = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(server, number)
        for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), number)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries[-1] / program, *arguments],
            env={"PGDATA": str(self.folder / "data")},
            check=True,
            user=pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else None,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class FrozenPostgres(Postgres):
    """Away means: connections stay open, and nothing is answered on them."""

    @contextmanager
    def away(self) -> Iterator[None]:
        self.signal(signal.SIGSTOP)
        yield
        self.signal(signal.SIGCONT)


@contextmanager
def postgres(kind: type[Postgres] = Postgres) -> Iterator[Postgres]:
    """A server of its own; the test is skipped when none is installed, and with CI=true fails."""
    if not Postgres.binaries:
        if os.environ.get("CI") == "true":
            pytest.fail("PostgreSQL is missing: apt-get install postgresql")
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    # Not pytest's folder: that is closed to the user the server runs as.
    with tempfile.TemporaryDirectory(prefix="govor-") as folder:
        server = kind(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()


Server = Sqlite | Postgres
KINDS = ("sqlite", "postgres")
AWAY = ("sqlite locked", "postgres stopped", "postgres frozen")


@contextmanager
def server(kind: str, folder: Path) -> Iterator[Server]:
    """A database by its name in `KINDS` or `AWAY`."""
    if kind.startswith("sqlite"):
        yield Sqlite(folder)
    else:
        with postgres(FrozenPostgres if kind.endswith("frozen") else Postgres) as running:
            yield running
