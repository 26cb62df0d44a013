"""Times, beats and bars of a tempo map."""

from __future__ import annotations

import pytest

from gateway.daw.tempo_map import MetrePoint, TempoMap, TempoPoint

MAP = TempoMap(
    [TempoPoint(0.0, 0, 120.0), TempoPoint(4.0, 8, 60.0), TempoPoint(10.0, 14, 90.0)],
    [MetrePoint(0.0, 0, 0, 4), MetrePoint(4.0, 8, 2, 3)],
)


@pytest.mark.parametrize(
    ("seconds", "beat"), [(0.0, 0.0), (1.25, 2.5), (4.0, 8.0), (5.5, 9.5), (10.0, 14.0), (12.0, 17.0)]
)
def test_times_and_beats_are_each_others_inverse(seconds, beat):
    assert MAP.beat_at(seconds) == pytest.approx(beat)
    assert MAP.seconds_at(beat) == pytest.approx(seconds)


def test_bars_follow_the_metre():
    assert [MAP.bar_at(beat) for beat in (0, 3, 4, 7, 8, 10, 11, 14)] == [
        (0, 0), (0, 3), (1, 0), (1, 3), (2, 0), (2, 2), (3, 0), (4, 0),
    ]  # fmt: skip


def test_default_is_120_bpm_in_four_four():
    assert TempoMap().beat_at(3.0) == 6.0
    assert TempoMap().bar_at(5) == (1, 1)
