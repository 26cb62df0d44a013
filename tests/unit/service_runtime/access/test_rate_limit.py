"""The token bucket of each bearer."""

from __future__ import annotations

import pytest

from dgx_music.errors import ResourceExhausted
from service_runtime.access import rate_limit
from service_runtime.access.rate_limit import RateLimiter


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(rate_limit.time, "monotonic", lambda: now[0])
    return now


def test_minute_of_calls_at_once_and_then_evenly(clock: list[float]) -> None:
    limiter = RateLimiter()
    for _ in range(30):
        limiter.take("a", 30)
    with pytest.raises(ResourceExhausted) as caught:
        limiter.take("a", 30)
    assert caught.value.retry_after_seconds == pytest.approx(2.0)
    clock[0] += 2.0
    limiter.take("a", 30)
    with pytest.raises(ResourceExhausted):
        limiter.take("a", 30)
    limiter.take("b", 30)  # Has a bucket of its own.
    clock[0] += 3600
    for _ in range(30):
        limiter.take("a", 30)
    with pytest.raises(ResourceExhausted):
        limiter.take("a", 30)


def test_no_limit() -> None:
    limiter = RateLimiter()
    for _ in range(1000):
        limiter.take("a", 0)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MAX_BUCKETS", 3)
    limiter = RateLimiter()
    for number in range(10):
        limiter.take(str(number), 1)
    assert len(limiter._buckets) <= 3
