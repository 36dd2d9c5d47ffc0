"""Who may import whom, read from the syntax tree: the rule in CONTRIBUTING.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
OURS = ("govor", "services", "trainer", "monitoring", "bench")
HEAVY = ("torch", "transformers", "sklearn")
FILES = sorted(path for folder in OURS for path in (HOME / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """The modules a file imports, and whether it does so at its top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node not in inside) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for name in node.names:
                yield f"{node.module}.{name.name}", node not in inside


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def allowed(importer: str, module: str) -> bool:
    """Whether a module of ours may import another one of ours."""
    if within(module, "govor"):
        return True
    if within(importer, "govor"):
        return False
    if within(importer, "services.embedded", "services.docs"):
        return within(module, "services")
    if within(importer, "services.__main__"):
        return within(module, "services.embedded", "services.doctor", "services.secrets")
    if within(importer, "services"):
        return within(module, ".".join(importer.split(".")[:2]))
    backends = [f"services.{name}.backends" for name in ("stt", "nlu", "generator", "tts")]
    if within(importer, "trainer"):
        return within(module, "trainer", *backends)
    if within(importer, "monitoring"):
        return within(module, "monitoring")
    return within(module, "bench", "trainer", *backends)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HOME)))
def test_imports_keep_the_rule(path: Path) -> None:
    importer = ".".join(path.relative_to(HOME).with_suffix("").parts)
    for module, at_top in imports(path):
        if within(module, *OURS):
            assert allowed(importer, module), f"{importer} imports {module}"
        if within(module, *HEAVY):
            assert within(importer, "trainer"), f"{importer} imports {module}"
            assert not at_top, f"{importer} imports {module} outside a function"
        if within(module, "fastapi", "starlette"):
            assert ".backends" not in importer, f"{importer} imports {module}"
