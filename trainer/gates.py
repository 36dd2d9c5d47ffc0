"""Whether a candidate may serve: checks with their values, limits and reasons.

A frozen set is small: of 100 rows two are lost or won by chance (docs/adr/0094). So a candidate may
lose a little to the champion, and is refused past that whether or not the loss could be chance: the
champion then simply goes on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from trainer.evaluation import Answers


@dataclass(frozen=True)
class Limits:
    """What a candidate is held to. Shares, except for `size_bytes` and `rows`."""

    accuracy_drop: float = 0.02
    out_of_scope_drop: float = 0.05
    rows: int = 2
    """Rows that may always be lost, however small the set."""
    calibration_rise: float = 0.05
    """Of a small set, more: a calibration error of n rows is off by about 1/sqrt(n) itself."""
    accuracy: float = 0.6
    """Least accuracy of a language, unless the champion has less."""
    out_of_scope: float = 0.6
    calibration_error: float = 0.25
    size_bytes: int = 4_000_000


FROZEN = Limits()
HELD_OUT = Limits(accuracy=0.5, out_of_scope=0.5)
"""For rows of templates that a classifier has not seen: one of "yes", "yeah" and "sure" alone says
little of the others, so that good heads score 0.7 to 0.8 here."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `limit` is the least or the most that `value` may be."""

    name: str
    value: float
    limit: float
    passed: bool
    reason: str


def decide(
    candidate: Answers,
    champion: Answers | None,
    languages: Sequence[str],
    size_bytes: int,
    limits: Limits = FROZEN,
) -> list[Check]:
    """All checks of a candidate; it may serve when each has passed. Without a champion, because it
    has no head for the pack or has learnt the rows, only the limits that stand alone count."""
    pair, spare = (candidate, champion), limits.rows
    checks: list[Check] = []
    for language in languages:
        rows = candidate.of(language) & candidate.in_scope
        floor, drop = limits.accuracy, limits.accuracy_drop
        checks += _share(f"accuracy.{language}", *pair, rows, floor, drop, spare)
    floor, drop = limits.out_of_scope, limits.out_of_scope_drop
    checks += _share("out_of_scope_recall", *pair, ~candidate.in_scope, floor, drop, spare)
    checks.append(_calibration(candidate, champion, limits))
    small = size_bytes <= limits.size_bytes
    says = f"the head has {size_bytes / 1e6:.2f} MB of {limits.size_bytes / 1e6:.2f}"
    checks.append(Check("size_bytes", size_bytes, limits.size_bytes, small, says))
    return checks


def _share(
    name: str,
    candidate: Answers,
    champion: Answers | None,
    rows: NDArray[Any],
    floor: float,
    drop: float,
    spare: int,
) -> Iterator[Check]:
    """The share of `rows` that is right: over its floor, and not below the champion's."""
    count = int(rows.sum())
    if count == 0:
        return
    value = float(candidate.right[rows].mean())
    if champion is not None:
        before = float(champion.right[rows].mean())
        lost = int((champion.right & ~candidate.right)[rows].sum())
        gained = int((candidate.right & ~champion.right)[rows].sum())
        limit = before - max(drop, spare / count)
        reason = (
            f"{value:.3f} of {count} rows, the champion {before:.3f}: lost {lost}, gained {gained} "
            f"(by chance alone: p = {sign_test(lost, gained):.2f})"
        )
        yield Check(name, value, limit, value >= limit - 1e-9, reason)
        floor = min(floor, before)
    reason = f"{value:.3f} of {count} rows, at least {floor:.3f}"
    yield Check(f"{name}.floor", value, floor, value >= floor, reason)


def _calibration(candidate: Answers, champion: Answers | None, limits: Limits) -> Check:
    value = candidate.metrics()["calibration_error"]
    if champion is None:
        limit, against = limits.calibration_error, "alone"
    else:
        before = champion.metrics()["calibration_error"]
        limit = before + max(limits.calibration_rise, len(candidate.rows) ** -0.5)
        against = f"the champion's {before:.3f}"
    reason = f"confidences are off by {value:.3f}, at most {limit:.3f} ({against})"
    return Check("calibration_error", value, limit, value <= limit, reason)


def sign_test(lost: int, gained: int) -> float:
    """How likely as many or more of the rows that changed would be lost, were it a coin's toss."""
    changed = lost + gained
    ways = sum(math.comb(changed, k) for k in range(lost, changed + 1))
    return ways / (1 << changed)


def not_frozen(pack: str, rows: int, folds: int) -> Check:
    """Says that a pack has no frozen set, and what that means for the checks beside this one."""
    reason = (
        f"domains/{pack} has no evaluation/: judged in {folds} folds by templates that each "
        "fold's classifier had not seen; the champion has learnt them and is not compared"
    )
    return Check("held_out", rows, 1, rows >= 1, reason)
