"""The reader's view of a request: an asynchronous iterator over its audio."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from dgx_music.errors import Aborted, ServiceError
from generation_service.engine.sequence import Sequence, Stage
from generation_service.models.base import FloatArray, GenerationParameters, MetadataValue, ModelInfo, Section


class EngineControl(Protocol):
    """The calls that a handle makes to the engine."""

    def frames_consumed(self, sequence: Sequence, frames: int) -> None:
        """Reports that the reader has consumed this many frames."""

    def cancel(self, sequence: Sequence) -> None:
        """Cancels the request."""

    def suspend(self, sequence: Sequence) -> None:
        """Has the request end with `GenerationSuspended`."""


class GenerationHandle:
    """The audio of one request: an async iterator over float32 blocks [n, channels], for one reader on the event loop.

    Iteration raises the ServiceError that ended the request, if there is one. A reader that stops early calls `cancel`,
    which frees the request's place in the batch at the next step; after the end it does nothing.
    """

    def __init__(
        self,
        info: ModelInfo,
        parameters: GenerationParameters,
        engine: EngineControl,
        *,
        buffer_seconds: float,
        stall_seconds: float,
    ) -> None:
        self.info = info
        self.parameters = parameters
        self.metadata: Mapping[str, MetadataValue] = {}
        """What the model knows about the music. Filled in once `wait_until_started` has returned, as is `sections`."""
        self.sections: tuple[Section, ...] = ()
        self._engine = engine
        self._stall_seconds = stall_seconds
        self.sequence = Sequence(info, parameters, max(1, round(buffer_seconds * info.sample_rate_hz)), self)
        self._blocks: deque[FloatArray] = deque()
        self._queued_frames = 0
        self._is_started = False
        self._is_finished = False
        self._error: ServiceError | None = None
        self._on_end: Callable[[ServiceError | None], None] | None = None
        self._changed = asyncio.Event()
        self._stall_timer: asyncio.TimerHandle | None = None
        self._is_read_later = False

    @property
    def stage(self) -> Stage:
        """What the engine is doing for the request."""
        return self.sequence.stage

    @property
    def frames_delivered(self) -> int:
        """The number of frames generated so far, whether or not they have been read."""
        return self.sequence.frames_delivered

    @property
    def progress(self) -> float:
        """The fraction of the work that is done, 0 to 1."""
        return self.sequence.progress

    @property
    def is_finished(self) -> bool:
        """Whether the request has ended; blocks may still be unread."""
        return self._is_finished

    def when_finished(self, action: Callable[[ServiceError | None], None]) -> None:
        """Calls `action` once the request has ended, with the error that ended it; at once if it has."""
        self._on_end = action
        if self._is_finished:
            action(self._error)

    @property
    def is_resumed(self) -> bool:
        """Whether the request goes on from its checkpoint: it first yields what it has yielded before once more. Known
        once the request has started."""
        return self.sequence.is_resumed

    @property
    def is_started(self) -> bool:
        """Whether the prompt is encoded and `metadata` is known."""
        return self._is_started

    async def wait_until_started(self) -> None:
        """Returns once the prompt is encoded and `metadata` is known. Raises the error that ended the request before
        that, if there is one."""
        await self._wait_until(lambda: self._is_started)

    @contextmanager
    def read_later(self) -> Iterator[None]:
        """While the block runs, the reader is busy with other audio, and is not taken for one that disappeared."""
        self._is_read_later = True
        self._stop_stall_timer()
        try:
            yield
        finally:
            self._is_read_later = False
            self._start_stall_timer()

    def __aiter__(self) -> GenerationHandle:
        return self

    async def __anext__(self) -> FloatArray:
        block = await self.next_block()
        if block is None:
            raise StopAsyncIteration
        self._engine.frames_consumed(self.sequence, len(block))
        return block

    async def next_block(self) -> FloatArray | None:
        """Returns the next block, or None after the last, without reporting its frames to the engine as consumed. The
        caller does that once their reader, in another process, has consumed them."""
        await self._wait_until(lambda: bool(self._blocks))
        if not self._blocks:
            return None
        block = self._blocks.popleft()
        self._queued_frames -= len(block)
        if self._queued_frames < self.sequence.max_buffered_frames:
            self._stop_stall_timer()
        return block

    def cancel(self, error: ServiceError | None = None) -> None:
        """Cancels the request and drops unread blocks. A waiting reader gets `error`, or else GENERATION_CANCELLED."""
        if not self._is_finished:
            self._engine.cancel(self.sequence)
            self._blocks.clear()
            self.on_finished(error or Aborted("the generation was cancelled", reason="GENERATION_CANCELLED"))
        elif self._blocks:
            self._blocks.clear()

    def suspend(self) -> None:
        """Stops the request at the next step. What was generated before can still be read; then the reader gets
        `GenerationSuspended`, with what the request can go on from. Does nothing after the end."""
        if not self._is_finished:
            self._engine.suspend(self.sequence)

    def on_started(self, metadata: Mapping[str, MetadataValue], sections: tuple[Section, ...]) -> None:
        self.metadata, self.sections = metadata, sections
        self._is_started = True
        self._changed.set()

    def on_block(self, block: FloatArray) -> None:
        if self._is_finished:  # The block was in flight when the reader cancelled.
            return
        self._blocks.append(block)
        self._queued_frames += len(block)
        self._start_stall_timer()
        self._changed.set()

    def on_finished(self, error: ServiceError | None) -> None:
        if self._is_finished:
            return
        self._is_finished = True
        self._error = error
        self._stop_stall_timer()
        self._changed.set()
        if self._on_end is not None:
            self._on_end(error)

    def _start_stall_timer(self) -> None:
        is_needed = self._stall_timer is None and not self._is_read_later and not self._is_finished
        if is_needed and self._queued_frames >= self.sequence.max_buffered_frames:
            loop = asyncio.get_running_loop()
            self._stall_timer = loop.call_later(self._stall_seconds, self._cancel_stalled)

    def _stop_stall_timer(self) -> None:
        if self._stall_timer:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _cancel_stalled(self) -> None:
        # A reader that disappeared without cancelling would otherwise keep its place in the batch forever.
        self.cancel(
            Aborted(
                f"the audio was not read for {self._stall_seconds:g} s; retry, and read it as it arrives",
                reason="READER_STALLED",
            )
        )

    async def _wait_until(self, is_reached: Callable[[], bool]) -> None:
        while not is_reached():
            if self._is_finished:
                if self._error:
                    raise self._error
                return
            self._changed.clear()
            await self._changed.wait()
