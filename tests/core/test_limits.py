import pytest

from govor.errors import RateLimited
from govor.limits import RateLimit


def test_a_bucket_refills_with_time() -> None:
    now = 0.0
    limit = RateLimit(60, lambda: now)
    for _ in range(60):
        limit.take("a")
    with pytest.raises(RateLimited) as caught:
        limit.take("a")
    assert caught.value.retry_after == pytest.approx(1.0)
    limit.take("b")
    now = 1.0
    limit.take("a")
    with pytest.raises(RateLimited):
        limit.take("a")


def test_callers_are_forgotten_not_gathered() -> None:
    limit = RateLimit(1)
    for number in range(20_000):
        limit.take(str(number))
    assert len(limit) == 10_000


def test_zero_is_no_limit() -> None:
    limit = RateLimit(0)
    for _ in range(1000):
        limit.take("a")
