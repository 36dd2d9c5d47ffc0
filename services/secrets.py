"""The secrets of a stack of containers: `python -m services secrets` makes those that are missing.

    secrets/own/{internal,subject}.key    0600  ours alone, in all containers of ours
    secrets/own/keys                      0600  who may call (`GOVOR_KEYS_FILE`), by digest
    secrets/own/{database,broker}.url     0600  with the passwords in them
    secrets/admin/admin.key               0600  the operator's key, in the gateway alone
    secrets/<container>/*                 0640  what one container of others reads by our group,
                                                mounted there alone

All are random; what follows from a password is written anew each time. Nothing is printed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from govor.keys import ADMIN, SPEAK, digest_of, secret

_OURS = {
    "own": ("internal.key", "subject.key", "keys", "database.url", "broker.url"),
    "admin": ("admin.key",),
}


def make(folder: Path) -> None:
    """Makes what is missing in `folder`; `OSError` where that cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    _move_in(folder)
    own = folder / "own"
    for name in ("internal.key", "subject.key"):
        secret(own / name)
    callers = {
        "admin": ((SPEAK, ADMIN), secret(folder / "admin" / "admin.key").decode()),
        "alertmanager": ((ADMIN,), _shared(folder / "alertmanager" / "gateway.key")),
    }
    if not (own / "keys").exists():  # more callers are added by hand
        lines = [
            f"{name} {','.join(scopes)} sha256:{digest_of(key)}\n"
            for name, (scopes, key) in callers.items()
        ]
        _write(own / "keys", "".join(lines), 0o600)

    postgres = _shared(folder / "postgres" / "password")
    _write(own / "database.url", f"postgresql+psycopg://govor:{postgres}@postgres/govor", 0o600)
    redis = _shared(folder / "redis" / "password")
    _write(own / "broker.url", f"redis://:{redis}@redis:6379/0", 0o600)
    _write(folder / "redis" / "redis.conf", f"requirepass {redis}\n", 0o640)
    by_address = json.dumps({"redis://redis:6379": redis})
    _write(folder / "redis-exporter" / "passwords.json", by_address, 0o640)
    _shared(folder / "grafana" / "password")


def _move_in(folder: Path) -> None:
    """Ours lay in `folder` itself once: who has another subject key knows nobody any more."""
    for home, names in _OURS.items():
        (folder / home).mkdir(mode=0o700, exist_ok=True)
        for name in names:
            if (folder / name).is_file() and not (folder / home / name).exists():
                (folder / name).rename(folder / home / name)


def _shared(path: Path) -> str:
    """A secret that one container of others reads, too."""
    value = secret(path).decode()
    path.parent.chmod(0o750)
    path.chmod(0o640)
    return value


def _write(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(mode=0o750, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    draft.rename(path)
