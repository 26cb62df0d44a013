"""Takes whose bars are the session's bars."""

from __future__ import annotations

import pytest

from gateway.daw.take_layout import Placement, TakeGrid, choose_placement, lay_out
from gateway.daw.tempo_map import TempoPoint


def grid(bpm, first_bar=0.0, beats_per_bar=4, *more):
    return TakeGrid((TempoPoint(first_bar, 0, bpm), *more), beats_per_bar, is_known=True)


def check_bar_starts(layout, index, take, bars):
    """Every bar of a take begins where a bar of the session does."""
    for bar in range(bars):
        seconds = layout.starts[index] + take.first_bar_seconds + bar * take.beats_per_bar * 60.0 / take.bpm
        beat = layout.tempo_map.beat_at(seconds)
        assert beat == pytest.approx(round(beat), abs=1e-6)
        assert layout.tempo_map.bar_at(round(beat))[1] == 0


def test_take_that_begins_with_a_bar_begins_the_session():
    layout = lay_out([grid(100.0)], [20.0], Placement.LAYERS)
    assert layout.starts == [0.0]
    assert [(point.seconds, point.beat, point.bpm) for point in layout.tempo_map.tempi] == [(0.0, 0, 100.0)]


def test_pick_up_is_before_the_second_bar_of_the_session():
    take = grid(120.0, 0.7)
    layout = lay_out([take], [20.0], Placement.LAYERS)
    assert layout.starts == [pytest.approx(2.0 - 0.7)]
    check_bar_starts(layout, 0, take, 8)


def test_first_bar_a_few_milliseconds_late_is_no_pick_up():
    assert lay_out([grid(120.0, 0.008)], [20.0], Placement.LAYERS).starts == [0.0]


def test_layers_have_their_first_bars_together():
    takes = [grid(120.0), grid(120.0, 0.5), grid(120.3, 1.9)]
    layout = lay_out(takes, [20.0, 20.0, 20.0], Placement.LAYERS)
    firsts = [start + take.first_bar_seconds for start, take in zip(layout.starts, takes, strict=True)]
    assert firsts == [pytest.approx(2.0)] * 3
    assert min(layout.starts) >= 0.0


def test_take_without_a_tempo_does_not_decide_it():
    layout = lay_out([TakeGrid(), grid(90.0)], [20.0, 20.0], Placement.LAYERS)
    assert layout.tempo_map.tempi[0].bpm == 90.0


def test_sequence_finishes_the_bar_and_changes_tempo_and_metre():
    takes = [grid(120.0, 0.5), grid(90.0, 0.3, 3), grid(140.0)]
    lengths = [10.0, 7.0, 5.0]
    layout = lay_out(takes, lengths, Placement.SEQUENCE)
    for index, take in enumerate(takes):
        check_bar_starts(layout, index, take, 2)
    for start, length, following in zip(layout.starts, lengths, layout.starts[1:], strict=False):
        assert following >= start + length - 1e-9
    assert [point.beats_per_bar for point in layout.tempo_map.metres] == [4, 3, 4]
    assert [point.bpm for point in layout.tempo_map.tempi] == [120.0, 90.0, 140.0]


def test_changes_of_tempo_are_where_the_music_has_them():
    take = grid(100.0, 0.4, 4, TempoPoint(0.4 + 8 * 0.6, 8, 110.0), TempoPoint(0.4 + 8 * 0.6 + 4 * 60 / 110, 12, 120.0))
    layout = lay_out([take], [30.0], Placement.LAYERS)
    for point in take.tempi[1:]:
        assert layout.tempo_map.beat_at(layout.starts[0] + point.seconds) == pytest.approx(4 + point.beat)
    assert [point.beat for point in layout.tempo_map.tempi] == [0, 12, 16]


@pytest.mark.parametrize(
    ("takes", "placement"),
    [
        ([grid(120.0)], Placement.LAYERS),
        ([grid(120.0), grid(120.4)], Placement.LAYERS),
        ([grid(120.0), TakeGrid(), grid(120.0, 1.0)], Placement.LAYERS),
        ([grid(120.0), grid(124.0)], Placement.SEQUENCE),
        ([grid(120.0), grid(120.0, 0.0, 3)], Placement.SEQUENCE),
        ([grid(120.0), grid(120.0, 0.0, 4, TempoPoint(8.0, 16, 125.0))], Placement.SEQUENCE),
    ],
)
def test_takes_of_one_tempo_are_layers(takes, placement):
    assert choose_placement(takes) is placement
