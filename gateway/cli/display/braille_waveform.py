"""Draws a waveform in characters: each braille character is 2 points wide and 4 levels high."""

from __future__ import annotations

from collections.abc import Sequence

POINTS_PER_CHARACTER = 2
LEVELS_PER_CHARACTER = 4
FULL_SCALE = 128
"""Of the 8-bit values in a GetWaveformResponse."""
BRAILLE = 0x2800
"""The empty braille pattern (Unicode, block U+2800)."""
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""[point][level from the top] → the dot's bit."""


def draw(data: Sequence[int], rows: int) -> list[str]:
    """`rows` lines, top first. `data`: smallest and largest value of each point, in turn, -128 to 127.

    Full scale is the whole height, so that a quiet file looks quiet; silence is a line.
    """
    levels = rows * LEVELS_PER_CHARACTER
    points = len(data) // 2
    cells = [[BRAILLE] * -(-points // POINTS_PER_CHARACTER) for _ in range(rows)]
    for point in range(points):
        lowest, highest = data[2 * point], data[2 * point + 1]
        for level in range(_level(highest, levels), _level(lowest, levels) + 1):
            row, dot = divmod(level, LEVELS_PER_CHARACTER)
            column, side = divmod(point, POINTS_PER_CHARACTER)
            cells[row][column] |= DOTS[side][dot]
    return ["".join(map(chr, row)) for row in cells]


def _level(value: int, levels: int) -> int:
    """The level, from the top, that a value lies in."""
    return min(levels - 1, (FULL_SCALE - 1 - value) * levels // (2 * FULL_SCALE))
