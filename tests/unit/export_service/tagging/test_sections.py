"""Sections at another sample rate."""

from __future__ import annotations

import pytest

from export_service.tagging.sections import Section, scale_sections


@pytest.mark.parametrize(
    ("sections", "rates", "frames", "scaled"),
    [
        ([(0, 100), (100, 200)], (32_000, 48_000), 300, [(0, 150), (150, 300)]),
        ([(0, 101), (101, 200)], (48_000, 32_000), 133, [(0, 67), (67, 133)]),
        ([(0, 100), (100, 300)], (8000, 8000), 250, [(0, 100), (100, 250)]),
        ([(-5, 100), (300, 400), (50, 50), (60, 40)], (8000, 8000), 300, [(0, 100)]),
        ([], (8000, 48_000), 300, []),
    ],
)
def test_sections_are_scaled_and_clipped(sections, rates, frames, scaled):
    named = [Section(f"{number}", *bounds) for number, bounds in enumerate(sections)]
    result = scale_sections(named, *rates, frames)
    assert [(section.start_frame, section.end_frame) for section in result] == scaled
    assert [section.name for section in result] == [str(number) for number in range(len(scaled))]
