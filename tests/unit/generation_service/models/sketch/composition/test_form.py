"""The form of a piece: its length, its end and its sections."""

import pytest

from generation_service.models.sketch.composition.form import build_form

RATE = 32_000


@pytest.mark.parametrize("bpm", [40.0, 92.5, 140.0, 240.0])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.0, 7.123, 16.0, 31.0, 60.0, 600.0])
def test_sections_cover_the_piece(bpm: float, seconds: float) -> None:
    total = round(seconds * RATE)
    form = build_form(total, bpm, RATE, 1.5, 0.0)
    bar = 0
    for section in form.sections:
        assert section.first_bar == bar
        assert section.bars > 0
        assert 0.0 <= section.energy <= 1.0
        bar += section.bars
    assert bar == form.bars
    end = form.end_frame if form.end_frame is not None else total
    assert (bar - 1) * form.bar_frames < end <= bar * form.bar_frames + 1
    assert 0 <= form.fade_start < total
    if form.end_frame is not None:
        # The closing chord falls on beat 1 or 3 and has time to ring.
        halves = form.end_frame / (form.bar_frames / 2)
        assert halves == pytest.approx(round(halves), abs=1e-3)
        assert total - form.end_frame >= min(1.5 * RATE, 0.25 * total) - 1


def test_long_piece_has_all_kinds_of_sections() -> None:
    form = build_form(120 * RATE, 120.0, RATE, 1.5, 0.0)
    names = [section.name for section in form.sections]
    assert names[0] == "intro"
    assert names[-1] == "outro"
    assert {"A", "B", "break"} <= set(names)
