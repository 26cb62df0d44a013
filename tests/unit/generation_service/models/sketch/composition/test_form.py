"""The form of a piece: its length, its end and its sections."""

import pytest

from generation_service.models.sketch.composition.form import build_form, build_loop_form

RATE = 32_000
KINDS = ("song", "beat", "club", "head", "arc")


@pytest.mark.parametrize("bpm", [40.0, 92.5, 140.0, 240.0])
@pytest.mark.parametrize("seconds", [0.1, 1.0, 5.0, 7.123, 16.0, 31.0, 60.0, 600.0])
def test_sections_cover_the_piece(bpm: float, seconds: float) -> None:
    total = round(seconds * RATE)
    for kind in KINDS:
        form = build_form(total, bpm, RATE, 1.5, 0.0, kind, solo=True)
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


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("song", {"verse", "pre-chorus", "chorus", "bridge"}),
        ("beat", {"verse", "hook", "break"}),
        ("club", {"groove", "build", "drop", "breakdown"}),
        ("head", {"head", "solo"}),
        ("arc", {"theme", "climax", "episode"}),
    ],
)
def test_long_piece_has_the_sections_of_its_form(kind: str, names: set[str]) -> None:
    form = build_form(200 * RATE, 120.0, RATE, 1.5, 0.0, kind)
    assert [form.sections[0].kind, form.sections[-1].kind] == ["intro", "outro"]
    assert names <= {section.name for section in form.sections}
    loudest = max(form.sections, key=lambda section: section.energy)
    assert loudest.kind == "chorus"


@pytest.mark.parametrize("kind", KINDS)
def test_even_a_short_clip_leads_to_its_main_section(kind: str) -> None:
    for bars in range(4, 20):
        form = build_form(round((bars * 2.0 + 1.5) * RATE), 120.0, RATE, 1.5, 0.0, kind)
        assert form.sections[0].kind == "intro"
        assert form.sections[-1].kind == "chorus"
        assert form.sections[-1].bars >= 2


def test_loop_has_no_ending() -> None:
    form = build_loop_form(8, 8 * 61_234)
    assert (form.bars, form.end_frame, form.bar_frames) == (8, None, 61_234)
    assert form.fade_start == form.total_frames == form.frame(8)
