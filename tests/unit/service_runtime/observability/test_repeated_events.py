"""Which of many equal events are logged."""

from __future__ import annotations

from service_runtime.observability.repeated_events import PERIOD_SECONDS, RepeatedEvents
from tests.support.tone_model import ManualClock


def test_one_event_of_a_kind_is_admitted_per_period_with_the_number_left_out() -> None:
    clock = ManualClock()
    events = RepeatedEvents(clock)
    assert [events.admit("a") for _ in range(4)] == [0, None, None, None]
    assert events.admit("b") == 0
    clock.now += PERIOD_SECONDS
    assert [events.admit("a") for _ in range(2)] == [3, None]
    clock.now += PERIOD_SECONDS
    assert events.admit("a") == 1
    assert events.admit("b") == 0
