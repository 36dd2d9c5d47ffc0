"""Model versions on disk: an overlay of a writable repository over the bundled one.

    <root>/<model>/<version>/manifest.json + the files it lists       immutable
    <root>/<model>/deployment.json                                    which version serves
    <root>/<model>/deployment_event.json                              who wrote that, and why

Versions are integers, taken by exclusive mkdir. A folder without a manifest is a version that is
still being written, or was left half-written: nobody reads it. `deploy` alone writes a deployment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from govor.errors import Conflict, NotFound

MANIFEST = "manifest.json"
DEPLOYMENT = "deployment.json"
EVENT = "deployment_event.json"
TAKEN = ".last"  # the highest number that was ever given
LAST = 2**31 - 1  # version: what the database's integer holds; file systems end sooner or later

# What a loader may open. Pickles run code, and so do custom-op libraries.
ALLOWED_SUFFIXES = frozenset(
    {".onnx", ".safetensors", ".json", ".jsonl", ".txt", ".md", ".fsg", ".dict", ".arpa"}
)
ALLOWED_NAMES = frozenset({"LICENSE", "NOTICE"})


class VersionBroken(Exception):
    """A version whose files are not what its manifest says."""


class Dataset(BaseModel):
    """Where rows that a version learnt from came from. `digest` is a SHA-256 of the rows used."""

    name: str
    source: str
    licence: str
    digest: str | None = None


class Manifest(BaseModel):
    """What a version says of itself. `files` maps names (`heads/x.json`) to SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    version: int = Field(ge=1)
    backend: str
    languages: list[str]
    files: dict[str, str]
    description: str = ""
    recipe: str
    params: dict[str, Any] = Field(default_factory=dict)
    fields: dict[str, list[str]] = Field(default_factory=dict)
    code_revision: str | None = None
    datasets: list[Dataset] = Field(default_factory=list)
    metrics: dict[str, float] = Field(default_factory=dict)
    gates: list[dict[str, Any]] = Field(default_factory=list)
    parent: int | None = None
    job: str | None = None
    licence: str
    created_at: str

    @property
    def rejected(self) -> bool:
        """Whether a gate refused it: such a version is kept to be looked at, and never serves."""
        return any(gate.get("passed") is False for gate in self.gates)


class Deployment(BaseModel):
    """Which versions of a model serve. `generation` grows by one with every write."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: int = Field(0, ge=0)
    champion: int | None = None
    challenger: int | None = None
    mode: Literal["off", "shadow", "canary", "ab"] = "off"
    share: int = Field(0, ge=0, le=10_000)
    salt: str = ""
    since: str | None = None


class Event(BaseModel):
    """A deployment: what it replaced, who did it (the name of a key, `trainer`) and what for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    before: Deployment
    after: Deployment
    actor: str
    reason: str | None = None


Record = Callable[[dict[str, Any]], None]
"""Is told of an `Event`, as a dictionary, once or more often (`database.record_deployment`)."""


@dataclass(frozen=True)
class Version:
    """One verified version."""

    model: str
    number: int
    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Where a listed file lies. Raises `VersionBroken` for one that is not listed."""
        if name not in self.manifest.files:
            raise VersionBroken(f"{self.model} version {self.number} has no file {name}")
        return self.folder / name

    def names(self, suffix: str = "") -> list[str]:
        """The listed files whose names end in `suffix`, sorted."""
        return sorted(name for name in self.manifest.files if name.endswith(suffix))


class Repository:
    """Reads both repositories, the writable one first; writes the writable one."""

    def __init__(self, writable: Path, bundled: Path) -> None:
        self.writable = writable
        self.bundled = bundled

    def models(self) -> list[str]:
        """The names of all models that have a version."""
        roots = [root for root in (self.writable, self.bundled) if root.is_dir()]
        names = {entry.name for root in roots for entry in root.iterdir() if entry.is_dir()}
        return sorted(name for name in names if self.versions(name))

    def versions(self, model: str) -> list[int]:
        """The complete versions of a model, ascending."""
        return sorted(self._numbers(self.writable / model) | self._numbers(self.bundled / model))

    def open(self, model: str, number: int) -> Version:
        """The version, its digests verified.

        Raises `NotFound` (`version_not_found`), or `VersionBroken`.
        """
        return _verified(model, number, self._folder(model, number))

    def manifest(self, model: str, number: int) -> Manifest:
        """What a version says of itself, without a look at its files: tens of megabytes to digest.

        Raises as `open` does.
        """
        return _manifest(model, number, self._folder(model, number))

    def _folder(self, model: str, number: int) -> Path:
        if 0 < number <= LAST:
            for root in (self.writable, self.bundled):
                folder = root / model / str(number)
                if (folder / MANIFEST).is_file():
                    return folder
        raise NotFound(f"{model} has no version {number}", code="version_not_found")

    def deployment(self, model: str) -> Deployment:
        """What serves; without a deployment file the highest bundled version that no version
        published here hides, and where there is none the highest that no gate refused.

        Raises `NotFound` (`model_not_found`) when there is neither, `VersionBroken` for a
        deployment file that cannot be read.
        """
        file = self.writable / model / DEPLOYMENT
        with contextlib.suppress(FileNotFoundError):
            try:
                return Deployment.model_validate_json(file.read_bytes())
            except ValidationError as error:
                raise VersionBroken(f"{file.name} of {model}: {error}") from error
        published = self._numbers(self.writable / model)
        numbers = self._numbers(self.bundled / model) - published or {
            number for number in published if not self.manifest(model, number).rejected
        }
        if not numbers:
            raise NotFound(f"there is no model {model}", code="model_not_found")
        return Deployment(champion=max(numbers))

    def publish(self, model: str, source: Path, **manifest: Any) -> Version:
        """Copies the files of `source` in as the next version, manifest last.

        `manifest` gives the fields of `Manifest` that are not taken from the files. A reader sees
        the whole version or none, also after a power cut.
        """
        root = self.writable / model
        root.mkdir(parents=True, exist_ok=True)
        folder = self._take(model)
        try:
            shutil.copytree(source, folder, dirs_exist_ok=True)
            _sync(*folder.rglob("*"), folder)
            write_manifest(folder, model=model, version=int(folder.name), **manifest)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _sync(folder, folder.parent)
        return _verified(model, int(folder.name), folder)

    def _take(self, model: str) -> Path:
        """A folder of a number that no version ever had, also none that was removed since: jobs,
        rows and metrics name versions by it."""
        root = self.writable / model
        with _lock(root / ".lock"):
            taken = [int(entry.name) for entry in root.iterdir() if entry.name.isdecimal()]
            with contextlib.suppress(FileNotFoundError, ValueError):
                taken.append(int((root / TAKEN).read_bytes()))
            number = max(taken + self.versions(model), default=0) + 1
            write_atomically(root / TAKEN, b"%d" % number)
            (root / str(number)).mkdir()
        return root / str(number)

    @staticmethod
    def _numbers(root: Path) -> set[int]:
        if not root.is_dir():
            return set()
        return {
            int(entry.name)
            for entry in root.iterdir()
            if entry.name.isdecimal() and (entry / MANIFEST).is_file()
        }


def deploy(
    repository: Repository,
    model: str,
    change: Mapping[str, Any],
    generation: int,
    record: Record | None = None,
    *,
    actor: str = "trainer",
    reason: str | None = None,
) -> Deployment:
    """Replaces a model's deployment by itself with `change` applied: compare and set.

    `generation` is the one that the caller has seen. The event is written before the deployment,
    and `record` is told of it after: of one who died in between, the next call or `record_last`
    tells it. Raises `Conflict` (`deployment_changed`) when somebody else wrote in between,
    `NotFound` for a version that does not exist, `Conflict` (`version_rejected`) for one that its
    gate refused.
    """
    root = repository.writable / model
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / ".lock"):
        current = repository.deployment(model)
        if current.generation != generation:
            raise Conflict(
                f"{model} is at generation {current.generation}, not {generation}",
                code="deployment_changed",
            )
        changed = _changed(repository, model, current, change)
        if record is not None:
            _tell(root / EVENT, current, record)  # the last that can: it is overwritten now
        event = Event(model=model, before=current, after=changed, actor=actor, reason=reason)
        write_atomically(root / EVENT, event.model_dump_json(indent=2).encode())
        write_atomically(root / DEPLOYMENT, changed.model_dump_json(indent=2).encode())
        if record is not None:
            record(event.model_dump())
    return changed


def record_last(repository: Repository, model: str, record: Record) -> None:
    """Tells `record` of the event that made the present deployment: the process that wrote it may
    have died before it did so."""
    root = repository.writable / model
    if (root / EVENT).is_file():
        with _lock(root / ".lock"):
            _tell(root / EVENT, repository.deployment(model), record)


def _changed(
    repository: Repository, model: str, current: Deployment, change: Mapping[str, Any]
) -> Deployment:
    """The next deployment, with versions that may serve."""
    changed = Deployment.model_validate(
        current.model_dump()
        | dict(change)
        | {"generation": current.generation + 1, "since": datetime.now(UTC).isoformat()}
    )
    for number in {changed.champion, changed.challenger} - {None}:
        if repository.open(model, int(number or 0)).manifest.rejected:
            raise Conflict(
                f"{model} version {number} did not pass its gate: it is kept, never served",
                code="version_rejected",
            )
    return changed


def _tell(file: Path, current: Deployment, record: Record) -> None:
    """Tells of the event in a file, if it is the one that made `current`. It is not where its
    writer died before the deployment, or somebody edited that by hand."""
    try:
        event = Event.model_validate_json(file.read_bytes())
    except (FileNotFoundError, ValidationError):
        return
    if event.after == current:
        record(event.model_dump())


def write_manifest(folder: Path, **fields: Any) -> Manifest:
    """Writes `manifest.json` for the files that lie in `folder`, with their digests."""
    files = {
        path.relative_to(folder).as_posix(): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = Manifest(
        files=files,
        created_at=fields.pop("created_at", None) or datetime.now(UTC).isoformat(),
        **fields,
    )
    for name in files:
        _check_name(manifest.model, name)
    text = json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / MANIFEST, text.encode())
    return manifest


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Writes next to the place and renames into it: a reader sees the old or the new."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync(*places: Path) -> None:
    """Files and folders are on the disk when it returns."""
    for place in places:
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _manifest(model: str, number: int, folder: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        raise VersionBroken(f"{model} version {number}: {error}") from error
    if (manifest.model, manifest.version) != (model, number):
        raise VersionBroken(f"{folder} calls itself {manifest.model} version {manifest.version}")
    return manifest


def _verified(model: str, number: int, folder: Path) -> Version:
    manifest = _manifest(model, number, folder)
    for name, expected in manifest.files.items():
        _check_name(model, name)
        try:
            actual = digest(folder / name)
        except OSError as error:
            raise VersionBroken(f"{model} version {number}: {name}: {error}") from error
        if actual != expected:
            raise VersionBroken(f"{model} version {number}: {name} is not what was published")
    return Version(model, number, folder, manifest)


def _check_name(model: str, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise VersionBroken(f"{model}: {name} leads out of the version's folder")
    if path.suffix not in ALLOWED_SUFFIXES and path.name not in ALLOWED_NAMES:
        raise VersionBroken(f"{model}: {name} is of a kind that is not opened")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
