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
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from govor.config import ConfigurationError, Settings

log = logging.getLogger(__name__)

SPEAK, ADMIN = "speak", "admin"
SCOPES = frozenset({SPEAK, ADMIN})
RELOAD_SECONDS = 10.0
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it is stored: `digest` is the hexadecimal SHA-256 of the key."""

    name: str
    digest: str
    scopes: tuple[str, ...]
    expires_at: datetime | None = None


KeyTable = Callable[[], Awaitable[Iterable[KeyRow]]]
"""Reads the keys of the database; raises while it is away."""


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
        if not _DIGEST.fullmatch(digest):
            raise ConfigurationError(
                f"GOVOR_KEYS_FILE: {path}, line {number}: expected 64 hexadecimal digits "
                "after sha256:"
            )
        rows.append(KeyRow(name, digest, tuple(scopes.split(","))))
    return rows


class Keyring:
    """The keys that are accepted now. A part of every service: reloads while it runs."""

    def __init__(self, settings: Settings, table: KeyTable | None = None) -> None:
        self._file = settings.keys_file
        self._table = table
        self._of_file: list[KeyRow] = read_keys(self._file) if self._file is not None else []
        self._of_table: list[KeyRow] | None = [] if table is None else None
        self._internal = digest_of(secret(settings.internal_key_path).decode())
        self._trouble: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether no key is configured, so that loopback may call without one. Not while nobody
        knows what the table holds."""
        return not self.configured and self._of_table is not None

    @property
    def configured(self) -> bool:
        """Whether there is a key that is known."""
        return bool(self._of_file or self._of_table)

    def find(self, key: str) -> Principal | None:
        """The owner of a key. Looks at every digest, so the time says nothing about any of them."""
        digest, found = digest_of(key), None
        if hmac.compare_digest(self._internal, digest):
            found = INTERNAL
        for row in (*self._of_file, *(self._of_table or ())):
            if hmac.compare_digest(row.digest, digest) and not _expired(row):
                found = Principal(row.name, frozenset(row.scopes))
        return found

    async def start(self) -> None:
        await self.reload()
        self._task = asyncio.create_task(self._follow(), name="reload keys")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def ready(self) -> tuple[bool, str]:
        if self._of_table is None:
            return False, "the table of keys was not read yet"
        return True, "open on loopback" if self.open else "configured"

    async def reload(self) -> None:
        """Reads both sources; one that cannot be read keeps the keys it gave last."""
        trouble = None
        try:
            if self._file is not None:
                self._of_file = await asyncio.to_thread(read_keys, self._file)
            if self._table is not None:
                self._of_table = list(await self._table())
        except Exception as error:
            trouble = str(error)
        if trouble and trouble != self._trouble:
            log.warning("keys stay as they were: %s", trouble)
        self._trouble = trouble

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_SECONDS if self._of_table is not None else 1.0)
            await self.reload()


def _expired(row: KeyRow) -> bool:
    return row.expires_at is not None and row.expires_at <= datetime.now(UTC)


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
