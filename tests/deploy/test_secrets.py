"""The secrets of a stack: made once, for those alone who need them, never said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from govor.config import Settings
from govor.keys import digest_of, read_keys
from services import secrets
from tests.deploy.stack import HOME


def test_callers_are_known_by_digest(tmp_path: Path) -> None:
    secrets.make(tmp_path)
    rows = {row.name: row for row in read_keys(tmp_path / "own" / "keys")}
    admin = (tmp_path / "admin" / "admin.key").read_text()
    alerts = (tmp_path / "alertmanager" / "gateway.key").read_text()
    assert rows["admin"].digest == digest_of(admin)
    assert set(rows["admin"].scopes) == {"speak", "admin"}
    assert (rows["alertmanager"].digest, rows["alertmanager"].scopes) == (
        digest_of(alerts),
        ("admin",),
    )
    assert admin not in (tmp_path / "own" / "keys").read_text()


def test_urls_and_passwords_belong_together(tmp_path: Path) -> None:
    secrets.make(tmp_path)
    settings = Settings(
        database_url_file=tmp_path / "own" / "database.url",
        broker_url_file=tmp_path / "own" / "broker.url",
    )
    postgres = (tmp_path / "postgres" / "password").read_text()
    redis = (tmp_path / "redis" / "password").read_text()
    assert settings.database == f"postgresql+psycopg://govor:{postgres}@postgres/govor"
    assert settings.broker_url == f"redis://:{redis}@redis:6379/0"
    assert (tmp_path / "redis" / "redis.conf").read_text() == f"requirepass {redis}\n"
    by_address = json.loads((tmp_path / "redis-exporter" / "passwords.json").read_text())
    assert by_address == {"redis://redis:6379": redis}
    assert len({postgres, redis, (tmp_path / "grafana" / "password").read_text()}) == 3


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    secrets.make(tmp_path)
    (tmp_path / "own" / "keys").write_text(
        (tmp_path / "own" / "keys").read_text() + "mine speak another-key\n"
    )
    before = contents(tmp_path)
    secrets.make(tmp_path)
    assert contents(tmp_path) == before


def test_those_of_an_earlier_version_are_kept(tmp_path: Path) -> None:
    secrets.make(tmp_path)
    before = contents(tmp_path)
    for home in (tmp_path / "own", tmp_path / "admin"):
        for path in home.iterdir():
            path.rename(tmp_path / path.name)
        home.rmdir()
    secrets.make(tmp_path)
    assert contents(tmp_path) == before


def test_others_read_only_what_is_theirs(tmp_path: Path) -> None:
    secrets.make(tmp_path)
    for folder in tmp_path.iterdir():
        ours = folder.name in ("own", "admin")
        assert folder.stat().st_mode & 0o777 == (0o700 if ours else 0o750), folder
        for path in folder.iterdir():
            assert path.stat().st_mode & 0o777 == (0o600 if ours else 0o640), path


def test_the_command_says_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services", "secrets"],
        cwd=HOME,
        env=os.environ | {"GOVOR_VAR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "secrets" / "admin" / "admin.key").stat().st_size > 30


def contents(folder: Path) -> dict[Path, str]:
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}
