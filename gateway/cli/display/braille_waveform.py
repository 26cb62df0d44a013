"""The waveform of a finished file in the terminal: each braille character is 2 points wide and 4 levels high."""

from __future__ import annotations

from collections.abc import Sequence

from dgx_music.client.waveform_drawing import FULL_SCALE
from dgx_music.export.v1.export_pb2 import GetWaveformRequest
from gateway.cli.display.console import Console
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS

ROWS = 4
MAX_COLUMNS = 120
POINTS_PER_CHARACTER = 2
LEVELS_PER_CHARACTER = 4
BRAILLE = 0x2800
"""The empty braille pattern (Unicode, block U+2800)."""
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""[point][level from the top] → the bit of the dot."""


async def print_waveform(session: Session, console: Console, generation_id: str) -> None:
    """Prints the waveform across the width of the terminal, or why there is none: it never fails the command."""
    columns = min(console.width, MAX_COLUMNS)
    request = GetWaveformRequest(generation_id=generation_id, points=columns * POINTS_PER_CHARACTER)
    lines: list[str] = []
    with console.optional("draw the waveform"):
        waveform = await session.music.GetWaveform(request, timeout=CALL_TIMEOUT_SECONDS)
        lines = draw_waveform(waveform.data, ROWS)
    for line in lines:
        console.out.print(line, style="cyan")


def draw_waveform(data: Sequence[int], rows: int) -> list[str]:
    """Returns `rows` lines, top first. `data` holds the minimum and the maximum of each point in turn, -128 to 127.

    Full scale fills the whole height, so that a quiet file looks quiet; silence is a line.
    """
    levels = rows * LEVELS_PER_CHARACTER
    points = len(data) // 2
    cells = [[BRAILLE] * -(-points // POINTS_PER_CHARACTER) for _ in range(rows)]
    for point in range(points):
        lowest, highest = data[2 * point], data[2 * point + 1]
        for level in range(_level_of(highest, levels), _level_of(lowest, levels) + 1):
            row, dot = divmod(level, LEVELS_PER_CHARACTER)
            column, side = divmod(point, POINTS_PER_CHARACTER)
            cells[row][column] |= DOTS[side][dot]
    return ["".join(map(chr, row)) for row in cells]


def _level_of(value: int, levels: int) -> int:
    """Returns the level, counted from the top, that a value falls into."""
    return min(levels - 1, (FULL_SCALE - 1 - value) * levels // (2 * FULL_SCALE))
