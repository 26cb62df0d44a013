"""How many pieces of a prefill are read between two steps."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.resident.prefill_pace import (
    MAX_PIECES,
    MAX_PREFILL_SECONDS,
    DeviceTimer,
    HostStopwatch,
    PrefillPace,
)


class FakeStopwatch(HostStopwatch):
    measured: float | None = None

    def seconds(self) -> float | None:
        return self.measured


@pytest.fixture
def stopwatch() -> FakeStopwatch:
    return FakeStopwatch()


def test_as_many_pieces_as_the_time_allows(stopwatch: FakeStopwatch) -> None:
    pace = PrefillPace(lambda: stopwatch)
    assert pace.pieces == 1, "nothing has been measured"
    read: list[int] = []
    pieces = 1
    for seconds, expected in ((0.004, 7), (0.1, 1), (1e-9, MAX_PIECES)):
        stopwatch.measured = None
        pace.measure(pieces, lambda: read.append(1))
        assert pace.pieces == pieces, "the device has not finished"
        stopwatch.measured = seconds * pieces
        pieces = pace.pieces
        assert pieces == expected
        assert pieces * seconds <= MAX_PREFILL_SECONDS or pieces == 1
    assert len(read) == 3


def test_timer_measures_one_call_at_a_time() -> None:
    stopwatches = [FakeStopwatch(), FakeStopwatch(), FakeStopwatch()]
    first, _, third = stopwatches
    timer = DeviceTimer(lambda: stopwatches.pop(0))
    calls: list[int] = []
    timer.measure(lambda: calls.append(1))
    assert timer.seconds == 0.0, "the device has not finished"
    timer.measure(lambda: calls.append(2))
    first.measured = 0.25
    assert timer.seconds == 0.25
    timer.measure(lambda: calls.append(3))
    assert timer.seconds == 0.25
    third.measured = 0.5
    assert timer.seconds == 0.5
    assert calls == [1, 2, 3]


def test_host_stopwatch_measures_what_ran() -> None:
    watch = HostStopwatch()
    watch.stop()
    first = watch.seconds()
    assert first >= 0
    assert watch.seconds() == first
