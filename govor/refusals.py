"""What an operator is told when a process cannot start: one line that names the setting."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_settings import SettingsError

from govor.config import ConfigurationError
from govor.domains import PackError


def refusal(error: BaseException) -> str | None:
    """The line, or None for an error that is ours and not the operator's."""
    match error:
        case ValidationError() if error.title.endswith("Settings"):
            said = _of_settings(error)
        case PackError():
            first, *more = str(error).splitlines()
            others = f" (and {len(more)} more: python -m govor.domains check)" if more else ""
            said = f"GOVOR_DOMAINS: {first}{others}"
        case ConfigurationError() | SettingsError():
            said = str(error)
        case _:
            return None
    return f"govor cannot start: {' '.join(said.split())}"


def _of_settings(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = "_".join(str(part) for part in first["loc"]).upper()
    return f"GOVOR_{name}={first['input']}: {first['msg']}"
