"""A request as its reader sees it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from dgx_music.errors import Aborted, ServiceError
from generation_service.engine.sequence import Sequence, Stage
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo


class Reins(Protocol):
    """What a handle may do to the engine."""

    def taken(self, sequence: Sequence, frames: int) -> None:
        """The reader took so many frames."""

    def cancel(self, sequence: Sequence) -> None:
        """The reader wants no more."""


class GenerationHandle:
    """The audio of one request: an async iterator over float32 blocks [n, channels], for one reader on the event loop.

    Iterating raises the ServiceError that ended the request, if one did. Whoever stops reading early calls `cancel`,
    which frees the request's place at the next step; afterwards it does nothing.
    """

    def __init__(
        self,
        info: ModelInfo,
        parameters: GenerationParameters,
        reins: Reins,
        *,
        buffer_seconds: float,
        stall_seconds: float,
    ) -> None:
        self.info = info
        self.parameters = parameters
        self.metadata: Mapping[str, MetadataValue] = {}
        """What the model knows of the music; filled once `started` has returned."""
        self._reins = reins
        self._stall_seconds = stall_seconds
        self.sequence = Sequence(info, parameters, max(1, round(buffer_seconds * info.sample_rate_hz)), self)
        self._blocks: deque[FloatArray] = deque()
        self._queued_frames = 0
        self._is_started = False
        self._is_finished = False
        self._error: ServiceError | None = None
        self._changed = asyncio.Event()
        self._stall_timer: asyncio.TimerHandle | None = None

    @property
    def stage(self) -> Stage:
        """What the engine is doing for it."""
        return self.sequence.stage

    @property
    def frames_made(self) -> int:
        """Frames made so far, read or not."""
        return self.sequence.delivered

    @property
    def progress(self) -> float:
        """Share of the frames made, 0 to 1."""
        return self.sequence.delivered / self.parameters.frames

    async def started(self) -> None:
        """Returns once the prompt is encoded and `metadata` known. Raises what ended the request before."""
        await self._until(lambda: self._is_started)

    def __aiter__(self) -> GenerationHandle:
        return self

    async def __anext__(self) -> FloatArray:
        await self._until(lambda: bool(self._blocks))
        if not self._blocks:
            raise StopAsyncIteration
        block = self._blocks.popleft()
        self._queued_frames -= len(block)
        if self._stall_timer and self._queued_frames < self.sequence.buffer_frames:
            self._stall_timer.cancel()
            self._stall_timer = None
        self._reins.taken(self.sequence, len(block))
        return block

    def cancel(self, error: ServiceError | None = None) -> None:
        """Gives the request up; a reader that still waits gets `error`, by default that it was cancelled."""
        if not self._is_finished:
            self._reins.cancel(self.sequence)
            self._blocks.clear()
            self.on_finished(error or Aborted("the generation was cancelled", reason="GENERATION_CANCELLED"))
        elif self._blocks:
            self._blocks.clear()

    def on_started(self, metadata: Mapping[str, MetadataValue]) -> None:
        self.metadata = metadata
        self._is_started = True
        self._changed.set()

    def on_block(self, block: FloatArray) -> None:
        if self._is_finished:  # It was on its way when the reader cancelled.
            return
        self._blocks.append(block)
        self._queued_frames += len(block)
        if self._stall_timer is None and self._queued_frames >= self.sequence.buffer_frames:
            loop = asyncio.get_running_loop()
            self._stall_timer = loop.call_later(self._stall_seconds, self._give_up_on_reader)
        self._changed.set()

    def on_finished(self, error: ServiceError | None) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        self._error = error
        if self._stall_timer:
            self._stall_timer.cancel()
            self._stall_timer = None
        self._changed.set()

    def _give_up_on_reader(self) -> None:
        # A reader that is gone without a word would hold its place in the batch for good.
        self.cancel(
            Aborted(
                f"nobody read the audio for {self._stall_seconds:g} s; ask again, and read it as it comes",
                reason="READER_STALLED",
            )
        )

    async def _until(self, is_there: Callable[[], bool]) -> None:
        while not is_there():
            if self._is_finished:
                if self._error:
                    raise self._error
                return
            self._changed.clear()
            await self._changed.wait()
