"""The little language of a flow's `if:`. Parsed, never evaluated as Python.

    or         = and ("or" and)*
    and        = not ("and" not)*
    not        = "not" not | comparison
    comparison = operand [("==" | "!=" | "<" | "<=" | ">" | ">=") operand | "in" "[" literals "]"]
    operand    = slot | number | 'text' | "text" | true | false | null | "(" or ")"

A slot may be dotted (`money.amount`). One that is empty is null; null, false, 0 and "" do not hold;
values that cannot be compared do not hold either.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Node = tuple[Any, ...]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?)|(?P<text>'[^']*'|\"[^\"]*\")"
    r"|(?P<name>[^\W\d]\w*(?:\.\w+)*)|(?P<mark>==|!=|<=|>=|[<>()\[\],]))"
)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONSTANTS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class Condition:
    """A parsed `if:`."""

    text: str
    tree: Node

    def holds(self, slots: Mapping[str, Any]) -> bool:
        return bool(_value(self.tree, slots))

    def slots(self) -> set[str]:
        """The slots it looks at."""
        return set(_names(self.tree))


def parse_condition(text: str) -> Condition:
    """Raises ValueError that says what was expected and where."""
    parser = _Parser(text)
    tree = parser.either()
    if parser.token:
        raise ValueError(f"{parser.token!r} was not expected in the condition {text!r}")
    return Condition(text, tree)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.rest = text.strip()
        self.token = self.kind = ""
        self.advance()

    def advance(self) -> str:
        taken = self.token
        match = _TOKEN.match(self.rest)
        if match is None and self.rest:
            raise ValueError(f"{self.rest!r} cannot be read in the condition {self.text!r}")
        self.kind = (match.lastgroup or "") if match else ""
        self.token = match[self.kind] if match else ""
        self.rest = self.rest[match.end() :].strip() if match else ""
        return taken

    def take(self, token: str) -> bool:
        if self.token != token or self.kind == "text":
            return False
        self.advance()
        return True

    def expect(self, token: str) -> None:
        if not self.take(token):
            raise ValueError(f"{token!r} is missing in the condition {self.text!r}")

    def either(self) -> Node:
        left = self.both()
        while self.take("or"):
            left = ("or", left, self.both())
        return left

    def both(self) -> Node:
        left = self.inverse()
        while self.take("and"):
            left = ("and", left, self.inverse())
        return left

    def inverse(self) -> Node:
        return ("not", self.inverse()) if self.take("not") else self.comparison()

    def comparison(self) -> Node:
        left = self.operand()
        if self.kind == "mark" and self.token in _COMPARE:
            return ("compare", self.advance(), left, self.operand())
        if self.take("in"):
            return ("in", left, self.literals())
        return left

    def literals(self) -> tuple[Any, ...]:
        self.expect("[")
        values: list[Any] = []
        while not self.take("]"):
            node = self.operand()
            if node[0] != "literal":
                raise ValueError(f"a list holds literals only, in the condition {self.text!r}")
            values.append(node[1])
            if self.token != "]":
                self.expect(",")
        return tuple(values)

    def operand(self) -> Node:
        if self.take("("):
            inner = self.either()
            self.expect(")")
            return inner
        kind, token = self.kind, self.token
        if kind not in ("number", "text", "name") or token in ("and", "or", "in"):
            raise ValueError(f"a value is missing in the condition {self.text!r}")
        self.advance()
        if kind == "number":
            return ("literal", float(token) if "." in token else int(token))
        if kind == "text":
            return ("literal", token[1:-1])
        return ("literal", _CONSTANTS[token]) if token in _CONSTANTS else ("slot", token)


def _value(node: Node, slots: Mapping[str, Any]) -> Any:
    match node:
        case ("or", left, right):
            return _value(left, slots) or _value(right, slots)
        case ("and", left, right):
            return _value(left, slots) and _value(right, slots)
        case ("not", inner):
            return not _value(inner, slots)
        case ("in", left, values):
            return _value(left, slots) in values
        case ("compare", sign, left, right):
            try:
                return _COMPARE[sign](_value(left, slots), _value(right, slots))
            except TypeError:
                return False
        case ("slot", name):
            return _slot(name, slots)
    return node[1]


def _slot(name: str, slots: Mapping[str, Any]) -> Any:
    value: Any = slots
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _names(node: Node) -> Iterator[str]:
    if node[0] == "slot":
        yield node[1].partition(".")[0]
    for part in node[1:]:
        if isinstance(part, tuple) and part and node[0] != "in":
            yield from _names(part)
    if node[0] == "in":
        yield from _names(node[1])
