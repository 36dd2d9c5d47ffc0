"""`python -m services doctor`: what is well here, what is not, and what to do about it.

A line a finding, `ok`, `warn` or `fail`, in words for whoever runs this. It asks from where it is
run, a laptop or a container, and of a stopped installation as well as of a running one. It tells no
secret and nothing that users said.
"""

from __future__ import annotations

from collections.abc import Iterator

from govor.config import Settings
from services.doctor import installation, stack
from services.doctor.finding import Check, Finding

__all__ = ["Finding", "examine"]

CHECKS: tuple[Check, ...] = (
    installation.versions,
    installation.clock,
    installation.devices,
    installation.trainings,
    installation.disk,
    installation.keys,
    installation.packs,
    installation.models,
    installation.ports,
    installation.database,
    installation.broker,
    installation.services,
    stack.containers,
)


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, as they are made. A check that fails itself is a finding, too."""
    for check in CHECKS:
        try:
            yield from check(settings)
        except Exception as error:
            yield Finding("fail", check.__name__, f"could not be looked at: {type(error).__name__}")
