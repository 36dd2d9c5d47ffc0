"""Reading a pack's YAML so that every complaint names file, line and field."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)
Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a pack. `line` counts from 1; `field` is a dotted path."""

    file: str
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}"
        return (
            f"{place}: {self.field}: {self.message}" if self.field else f"{place}: {self.message}"
        )


class PackError(ValueError):
    """A domain pack that cannot be used, with everything found wrong in it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class _Loader(yaml.SafeLoader):
    """YAML in which `no`, `on`, 12:30 and 2026-08-03 are text.

    A bot is made of such words: YAML 1.1 would turn the utterance `- no` into `false`.
    """


_Loader.yaml_implicit_resolvers = {}
for _tag, _regex, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", "tf"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|)$", ["~", "n", ""]),
    ("tag:yaml.org,2002:int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("tag:yaml.org,2002:float", r"^-?[0-9]+\.[0-9]+$", "-0123456789"),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_regex), list(_first))


@dataclass(frozen=True)
class Source:
    """One parsed YAML file: its data, and the line of each value by its path."""

    name: str
    data: Any
    lines: dict[Location, int] = field(repr=False)

    def problem(self, location: Location, message: str) -> Problem:
        """`location` may hold parts that are not in the file (pydantic's union tags)."""
        path: Location = ()
        for part in location:
            if (*path, part) in self.lines:
                path = (*path, part)
        named = [str(part) for part in location if not str(part).startswith("step:")]
        return Problem(self.name, self.lines.get(path, 1), ".".join(named), message)

    def parse(self, model: type[M]) -> M:
        """The file as `model`; raises PackError."""
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            raise PackError(
                [self.problem(e["loc"], _plain(e["msg"])) for e in error.errors()]
            ) from None


def read_yaml(path: Path, name: str) -> Source:
    """Raises PackError for a file that is not UTF-8 YAML or repeats a key."""
    try:
        loader = _Loader(path.read_text("utf-8"))
        node = loader.get_single_node()
        lines: dict[Location, int] = {}
        if node is not None:
            _mark(node, (), lines, name)
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = 1 if mark is None else mark.line + 1
        raise PackError([Problem(name, line, "", error.problem or str(error))]) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise PackError([Problem(name, 1, "", str(error))]) from None
    return Source(name, data, lines)


def _mark(node: yaml.Node, path: Location, lines: dict[Location, int], name: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _mark(item, (*path, index), lines, name)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, str(key.value))
            line = key.start_mark.line + 1
            if inner in lines:
                raise PackError([Problem(name, line, ".".join(map(str, inner)), "given twice")])
            lines[inner] = line
            _mark(value, inner, lines, name)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ")
