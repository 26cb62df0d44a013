"""The waveform in braille characters."""

from gateway.cli.display.braille_waveform import draw_waveform

FULL, EMPTY = "\u28ff", "\u2800"


def test_full_scale_fills_height() -> None:
    assert draw_waveform([-128, 127] * 4, rows=2) == [FULL * 2, FULL * 2]


def test_silence_is_line_in_middle() -> None:
    top, bottom = draw_waveform([0, 0] * 4, rows=2)
    assert top == "\u28c0\u28c0"  # The lowest level of the upper row.
    assert bottom == EMPTY * 2


def test_peak_is_drawn_at_its_point_and_side() -> None:
    lines = draw_waveform([0, 0, 0, 0, 0, 127, 0, 0], rows=1)
    levels = [[bool(ord(cell) - 0x2800 & bit) for bit in (0x01, 0x02, 0x04, 0x40)] for cell in lines[0]]
    assert levels == [[False, True, False, False], [True, True, False, False]]


def test_odd_point_fills_half_a_character() -> None:
    assert draw_waveform([-128, 127] * 3, rows=1) == [FULL + "\u2847"]


def test_no_points_give_empty_lines() -> None:
    assert draw_waveform([], rows=2) == ["", ""]
