"""How often one caller may call: a token bucket for each key or address.

Only the embedded mode's public door has one; behind a proxy the proxy counts.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from govor.errors import RateLimited

# Callers remembered; the one that called least recently is forgotten first.
_CALLERS = 10_000


class RateLimit:
    """`per_minute` requests a caller and minute, that many at once at most."""

    def __init__(self, per_minute: int, now: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._buckets)

    def take(self, caller: str) -> None:
        """Counts one request. Raises `RateLimited` with the seconds until the next is accepted."""
        if not self._per_minute:
            return
        now, a_second = self._now(), self._per_minute / 60
        tokens, since = self._buckets.pop(caller, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - since) * a_second)
        allowed = tokens >= 1
        self._buckets[caller] = (tokens - allowed, now)
        if len(self._buckets) > _CALLERS:
            self._buckets.popitem(last=False)
        if not allowed:
            raise RateLimited(
                f"over {self._per_minute} requests a minute", retry_after=(1 - tokens) / a_second
            )
