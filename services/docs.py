"""`python -m services.docs` writes what is made from the code; `--check` only says what is stale.

`docs/settings.md` comes from the settings classes, the gateway's `openapi.json` from the five apps.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from govor import openapi
from govor.config import Settings
from govor.routes import SERVICES

HOME = Path(__file__).resolve().parent.parent

_HEAD = """\
# Settings

Every setting is an environment variable; the services read the shared ones and their own. This
page is made from the settings classes by `python -m services.docs`.
"""
_TABLE = """
| Variable | Type | Default | What it is |
|---|---|---|---|
"""


def settings_page() -> str:
    """`docs/settings.md`: the shared settings, then each service's own."""
    page = _HEAD + _section("All services", Settings, {})
    for name in SERVICES:
        page += _section(f"`{name}`", _settings_of(name), Settings.model_fields)
    return page


def document() -> str:
    """The merged OpenAPI document, as the gateway serves it."""
    with tempfile.TemporaryDirectory() as folder:
        documents = {
            name: importlib.import_module(f"services.{name}.main")
            .create_app(_settings_of(name)(var=Path(folder)))
            .openapi()
            for name in SERVICES
        }
    merged = openapi.merge(documents, own="gateway")
    return json.dumps(merged, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


PAGES = {
    HOME / "docs" / "settings.md": settings_page,
    HOME / "services" / "gateway" / "openapi.json": document,
}


def main(arguments: Sequence[str]) -> str | None:
    """Writes what is stale, or with `--check` gives back what is wrong."""
    stale = []
    for path, make in PAGES.items():
        text = make()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(str(path.relative_to(HOME)))
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in arguments:
        return f"stale: {', '.join(stale)}; run python -m services.docs"
    return None


def _settings_of(name: str) -> type[Settings]:
    module = importlib.import_module(f"services.{name}.settings")
    found: type[Settings] = getattr(module, f"{name.title()}Settings")
    return found


def _section(title: str, kind: type[Settings], known: dict[str, FieldInfo]) -> str:
    rows = [_row(name, spec) for name, spec in kind.model_fields.items() if name not in known]
    text = f"\n## {title}\n"
    return text + _TABLE + "\n".join(rows) + "\n" if rows else text + "\nNone of its own.\n"


def _row(name: str, spec: FieldInfo) -> str:
    bounds = ", ".join(_bound(limit) for limit in spec.metadata if _bound(limit))
    kind = _type(spec.annotation) + (f" ({bounds})" if bounds else "")
    text = " ".join((spec.description or "").split())
    given = ",".join(spec.default) if isinstance(spec.default, tuple) else spec.default
    default = "" if given in (None, "", HOME) else f"`{given}`"
    return f"| `GOVOR_{name.upper()}` | {kind} | {default} | {text} |"


def _type(annotation: Any) -> str:
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in kinds)
    if get_origin(annotation) is tuple:
        return "list"
    if kinds:
        return _type(kinds[0])
    names = {int: "integer", float: "number", str: "text", bool: "yes or no", Path: "path"}
    return names[annotation]


def _bound(limit: Any) -> str:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return " ".join(f"{signs[n]} {getattr(limit, n)}" for n in signs if hasattr(limit, n))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
