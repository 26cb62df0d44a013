"""`BackgroundListener` listens with the Python client while a test does something to the servers."""

from __future__ import annotations

import asyncio

from dgx_music.client.async_generation import AsyncGeneration

FRAME_BYTES = 8
"""Of stereo."""


class BackgroundListener:
    """Listens in the background, and keeps what it hears."""

    def __init__(self, generation: AsyncGeneration, start_frame: int = 0) -> None:
        self.pcm, self.start_frame = bytearray(), start_frame
        self._begun, self._heard = asyncio.Event(), asyncio.Event()
        self._wanted = 0
        self._task = asyncio.create_task(self._listen(generation))

    async def _listen(self, generation: AsyncGeneration) -> None:
        async with generation.stream(start_frame=self.start_frame) as stream:
            self._begun.set()
            async for chunk in stream:
                self.pcm += chunk.pcm
                if len(self.pcm) >= self._wanted:
                    self._heard.set()

    async def begin(self) -> None:
        """Returns when there is audio."""
        async with asyncio.timeout(60):
            await self._begun.wait()

    async def hear(self, frames: int) -> None:
        """Returns when it has heard so many frames in all."""
        self._heard.clear()
        self._wanted = frames * FRAME_BYTES
        if len(self.pcm) < self._wanted:
            waiting = asyncio.create_task(self._heard.wait())
            await asyncio.wait({waiting, self._task}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        assert len(self.pcm) >= self._wanted

    async def end(self) -> bytes:
        """Returns what it has heard, at the end of the stream."""
        async with asyncio.timeout(60):
            await self._task
        return bytes(self.pcm)
