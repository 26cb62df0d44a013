"""The delays between retries."""

from __future__ import annotations

from generation_service.worker.backoff import Backoff


def test_delays_double_up_to_the_maximum() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_delay() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_reset_starts_over() -> None:
    backoff = Backoff(0.5, 3.0)
    backoff.next_delay()
    assert backoff.next_seconds == 1.0
    backoff.reset()
    assert backoff.next_delay() == 0.5


def test_jitter_shortens_the_delay_by_at_most_its_fraction() -> None:
    for _ in range(100):
        assert 1.0 <= Backoff(2.0, 2.0, jitter=0.5).next_delay() <= 2.0
