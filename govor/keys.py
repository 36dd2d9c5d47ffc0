"""Who may call: keys, their scopes, and the secrets of this installation.

Keys come from a file and from the table `api_key`; both hold digests or are turned into digests at
once. A reload that fails keeps the last known set.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from govor.config import ConfigurationError, Settings

log = logging.getLogger(__name__)

SPEAK, ADMIN = "speak", "admin"
SCOPES = frozenset({SPEAK, ADMIN})
RELOAD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is stored: `digest` is the hexadecimal SHA-256 of the key."""

    name: str
    digest: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. `subject` is the keyed digest of the person the caller speaks for."""

    name: str
    scopes: frozenset[str]
    subject: str | None = None
    internal: bool = False


OPEN = Principal("open", SCOPES)
"""Everybody on loopback while no key is configured."""
INTERNAL = Principal("internal", SCOPES, internal=True)
"""A sibling service."""


def digest_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(path: Path) -> list[KeyRow]:
    """The keys of a file with lines `<name> <scopes> <key or sha256:digest>`; `#` comments.

    Raises `ConfigurationError` naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"GOVOR_KEYS_FILE: {path} cannot be read: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, scopes, key = line.split()
        except ValueError:
            raise ConfigurationError(
                f"GOVOR_KEYS_FILE: {path}, line {number}: expected <name> <scopes> <key>"
            ) from None
        if unknown := set(scopes.split(",")) - SCOPES:
            raise ConfigurationError(
                f"GOVOR_KEYS_FILE: {path}, line {number}: unknown scope {min(unknown)!r}"
            )
        digest = key.removeprefix("sha256:").lower() if key[:7] == "sha256:" else digest_of(key)
        rows.append(KeyRow(name, digest, frozenset(scopes.split(","))))
    return rows


class Keyring:
    """The keys that are accepted now. A part of every service: reloads while it runs."""

    def __init__(
        self, settings: Settings, table: Callable[[], Iterable[KeyRow]] | None = None
    ) -> None:
        self._file = settings.keys_file
        self._table = table
        self._rows: dict[str, list[KeyRow]] = {}
        self._known: list[tuple[str, Principal]] = []
        self._internal = digest_of(secret(settings.internal_key_path).decode())
        self._task: asyncio.Task[None] | None = None
        if self._file is not None:
            self._rows["file"] = read_keys(self._file)
        self._index()

    @property
    def open(self) -> bool:
        """Whether no key is configured, so that loopback may call without one."""
        return len(self._known) == 1

    def find(self, key: str) -> Principal | None:
        """The owner of a key. Looks at every digest, so the time says nothing about any of them."""
        digest, found = digest_of(key), None
        for known, principal in self._known:
            if hmac.compare_digest(known, digest):
                found = principal
        return found

    async def start(self) -> None:
        await asyncio.to_thread(self.reload)
        self._task = asyncio.create_task(self._follow(), name="reload keys")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def ready(self) -> tuple[bool, str]:
        return True, "open on loopback" if self.open else f"{len(self._known) - 1} keys"

    def reload(self) -> None:
        """Reads both sources; one that cannot be read keeps the keys it gave last."""
        sources: dict[str, Callable[[], Iterable[KeyRow]]] = {}
        if self._file is not None:
            path = self._file
            sources["file"] = lambda: read_keys(path)
        if self._table is not None:
            sources["table"] = self._table
        for name, read in sources.items():
            try:
                self._rows[name] = list(read())
            except Exception as error:
                log.warning("keys of the %s stay as they were: %s", name, error)
        self._index()

    def _index(self) -> None:
        self._known = [(self._internal, INTERNAL)]
        for rows in self._rows.values():
            self._known += [(row.digest, Principal(row.name, row.scopes)) for row in rows]

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS)
            await asyncio.to_thread(self.reload)


def given_key(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The key a request carries: `Authorization: Bearer`, `X-API-Key`, or `?token=`."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key") or query.get("token")


def is_loopback(host: str | None) -> bool:
    """Whether an address (or `localhost`) is this machine's own."""
    if host is None or host == "localhost":
        return host is not None
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def subject_of(user: str, key: bytes) -> str:
    """What is stored instead of a user id: HMAC-SHA256, the same in all services."""
    return hmac.new(key, user.encode(), hashlib.sha256).hexdigest()


def secret(path: Path) -> bytes:
    """The secret in a file (0600), made at first need; safe when five services start at once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_urlsafe(32).encode())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_bytes().strip()
