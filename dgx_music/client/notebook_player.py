"""What a generation shows in a notebook: a player, its waveform and its figures."""

from __future__ import annotations

import asyncio
import base64
from html import escape
from typing import TYPE_CHECKING

from dgx_music.errors import ServiceError

if TYPE_CHECKING:
    from dgx_music.client.async_generation import AsyncGeneration
    from dgx_music.client.generation_fields import GenerationFields

MAX_EMBEDDED_BYTES = 4 * 2**20
"""Of an audio file within the notebook, where it takes a third more."""
MP3_QUALITY = 5.0
"""About 130 kbit/s for stereo: 4 minutes fit."""
POINTS = 320
"""Of the waveform; the picture has twice as many pixels."""
TIMEOUT_SECONDS = 30.0
"""For all that is fetched. A cell shows the text alone rather than wait longer."""


async def render_html(generation: AsyncGeneration) -> str:
    """Returns the HTML. What can't be fetched is left out, and the HTML says why; it raises nothing for it."""
    if generation.state != "completed":
        return frame_html(generation)
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            return frame_html(generation, await _player(generation), (await generation.waveform(POINTS)).to_svg())
    except (ServiceError, TimeoutError) as error:
        return frame_html(generation, explain(error))


def frame_html(generation: GenerationFields, *parts: str) -> str:
    """Returns HTML with the prompt, these parts, and the figures."""
    figures = f"{escape(', '.join(generation.summary()))}, id <code>{escape(generation.id)}</code>"
    return (
        f'<div class="dgx-music"><div>{escape(generation.prompt)}</div>{"".join(parts)}<small>{figures}</small></div>'
    )


def explain(error: Exception) -> str:
    """Returns what is shown instead of the player."""
    return f"<div>no player: {escape(str(error) or 'the server did not respond in time')}</div>"


async def _player(generation: AsyncGeneration) -> str:
    audio = await generation.read(format="mp3", quality=MP3_QUALITY)
    if len(audio) > MAX_EMBEDDED_BYTES:
        return "<div>too long for a player within the notebook; use save()</div>"
    data = base64.b64encode(audio).decode()
    return f'<audio controls src="data:audio/mpeg;base64,{data}" style="width: 100%; max-width: 640px"></audio>'
