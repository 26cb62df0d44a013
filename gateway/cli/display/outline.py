"""The waveform of a finished file in the terminal."""

from __future__ import annotations

from dgx_music.export.v1.export_pb2 import GetWaveformRequest
from gateway.cli.display.braille_waveform import POINTS_PER_CHARACTER, draw
from gateway.cli.display.console import Screen
from gateway.cli.session.runner import CALL_SECONDS, Session

ROWS = 4
WIDEST = 120
"""Characters."""


async def show_outline(session: Session, screen: Screen, generation_id: str) -> None:
    """Draws it as wide as the screen is. Raises AioRpcError where there is no file."""
    width = min(screen.width, WIDEST)
    outline = await session.music.GetWaveform(
        GetWaveformRequest(generation_id=generation_id, points=width * POINTS_PER_CHARACTER), timeout=CALL_SECONDS
    )
    for line in draw(outline.data, ROWS):
        screen.out.print(line, style="cyan")
