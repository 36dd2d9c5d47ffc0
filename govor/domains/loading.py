"""Reading a pack's folder into a checked `Pack`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel

from govor.domains.checks import Sources, check
from govor.domains.evaluation import FOLDER as EVALUATION
from govor.domains.evaluation import Evaluation
from govor.domains.flows import Flow
from govor.domains.model import (
    Dialogue,
    DomainSpec,
    EntitySpec,
    IntentSpec,
    Language,
    Menu,
    Name,
    ReplySpec,
    Text,
)
from govor.domains.pack import Pack
from govor.domains.prompts import Prompt
from govor.domains.safety import Phrases, SafetyFile, bundled_phrases, compile_safety
from govor.domains.source import PackError, Problem, read_yaml

M = TypeVar("M", bound=BaseModel)


class Flows(RootModel[dict[Name, Flow]]):
    """`flows.yaml`."""


class Replies(RootModel[dict[Name, ReplySpec]]):
    """`replies.yaml`."""


class Menus(RootModel[dict[Name, Menu]]):
    """`menus.yaml`."""


class Rules(RootModel[dict[Name, dict[Language, Text]]]):
    """`rules.yaml`: what `<name>` stands for in utterances, by language."""


class Dialogues(RootModel[tuple[Dialogue, ...]]):
    """A file of `tests/`."""


FILES: dict[str, type[BaseModel]] = {
    "domain.yaml": DomainSpec,
    "intents/*.yaml": IntentSpec,
    "entities/*.yaml": EntitySpec,
    "rules.yaml": Rules,
    "flows.yaml": Flows,
    "replies.yaml": Replies,
    "menus.yaml": Menus,
    "safety.yaml": SafetyFile,
    "tests/*.yaml": Dialogues,
    f"{EVALUATION}/*.yaml": Evaluation,
}
"""What a pack may hold, and the model of each file; `prompts/` and `corpus/` are plain text."""


def load_packs(folder: Path) -> dict[str, Pack]:
    """Every folder with a `domain.yaml`, by name. Raises PackError with all that is wrong."""
    packs, problems = {}, []
    for name in pack_names(folder):
        try:
            packs[name] = load_pack(folder / name)
        except PackError as error:
            problems += error.problems
    if problems:
        raise PackError(problems)
    return packs


def pack_names(folder: Path) -> list[str]:
    """The packs of a folder, whole or not."""
    return sorted(path.parent.name for path in folder.glob("*/domain.yaml"))


def load_pack(folder: Path) -> Pack:
    """Raises PackError with all that is wrong, each with file, line and field."""
    reader = _Reader(folder)
    parts: dict[str, Any] = {
        "intents": reader.by_name("intents", IntentSpec, "intent"),
        "entities": reader.by_name("entities", EntitySpec, "entity"),
        "rules": reader.root("rules.yaml", Rules),
        "flows": reader.root("flows.yaml", Flows),
        "replies": reader.root("replies.yaml", Replies),
        "menus": reader.root("menus.yaml", Menus),
        "dialogues": tuple(reader.dialogues()),
    }
    phrases: Phrases = reader.root("safety.yaml", SafetyFile)
    domain = reader.one("domain.yaml", DomainSpec, required=True)
    if reader.problems or domain is None:
        raise PackError(reader.problems)
    closed = frozenset(name for name, spec in parts["entities"].items() if spec.values)
    pack = Pack.model_construct(
        **{name: getattr(domain, name) for name in DomainSpec.model_fields},
        **parts,
        prompts=_prompts(folder, closed),
        digest=digest(folder),
        safe_phrases=compile_safety(bundled_phrases(), phrases),
    )
    problems = list(check(pack, reader.sources, folder.name))
    if problems:
        raise PackError(problems)
    return pack


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files but the frozen sets, which only judge."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder)
        if name.parts[0] != EVALUATION:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{name.as_posix()}\0{content}\n".encode())
    return total.hexdigest()


class _Reader:
    """Reads the files of one pack, and keeps what is wrong instead of stopping at the first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sources: Sources = {}
        self.problems: list[Problem] = []

    def one(self, name: str, model: type[M], required: bool = False) -> M | None:
        shown = f"{self.folder.name}/{name}"
        path = self.folder / name
        if not path.is_file():
            if required:
                self.problems.append(Problem(shown, 1, "", "the file is missing"))
            return None
        try:
            source = self.sources[name] = read_yaml(path, shown)
            return source.parse(model)
        except PackError as error:
            self.problems += error.problems
            return None

    def root(self, name: str, model: type[RootModel[Any]]) -> Any:
        read = self.one(name, model)
        return {} if read is None else read.root

    def names(self, folder: str) -> Iterator[str]:
        for path in sorted((self.folder / folder).glob("*.yaml")):
            yield f"{folder}/{path.name}"

    def by_name(self, folder: str, model: type[M], key: str) -> dict[str, M]:
        found: dict[str, M] = {}
        for name in self.names(folder):
            if (spec := self.one(name, model)) is not None:
                given = getattr(spec, key)
                if f"{folder}/{given}.yaml" != name:
                    self._wrong(name, key, f"the file of {given!r} is {folder}/{given}.yaml")
                found[given] = spec
        return found

    def dialogues(self) -> Iterator[Dialogue]:
        for name in self.names("tests"):
            if (read := self.one(name, Dialogues)) is not None:
                yield from read.root

    def _wrong(self, name: str, field: str, message: str) -> None:
        self.problems.append(self.sources[name].problem((field,), message))


def _prompts(folder: Path, closed: frozenset[str]) -> dict[str, dict[str, Prompt]]:
    """`prompts/<name>.<language>.txt`."""
    prompts: dict[str, dict[str, Prompt]] = {}
    for path in sorted((folder / "prompts").glob("*.*.txt")):
        name, language, _ = path.name.split(".", 2)
        prompts.setdefault(name, {})[language] = Prompt(path.read_text("utf-8").strip(), closed)
    return prompts
