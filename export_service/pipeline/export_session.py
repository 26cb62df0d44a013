"""A single export: receives samples, masters them and adds the file to the library."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from dgx_music.errors import DataLoss, InvalidArgument, ServiceError
from export_service.library.audio_library import AudioLibrary
from export_service.pipeline.attempt_processor import AttemptProcessor, ExportResult, ExportSpec
from export_service.streaming.recording import Recording, broke_off_error
from export_service.streaming.spool import BYTES_PER_SAMPLE, ReceivedAudio
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

MAX_PENDING_BYTES = 1 << 20
"""How many samples may wait for the worker: 4 s of 32 kHz stereo."""
MAX_PIECE_BYTES = 1 << 19
"""The worker takes samples until it has this many. Half of those that wait costs no time and saves memory."""


class ExportSession:
    """Receives the samples of one attempt, or takes over those of an earlier one, and makes a file of them.

    All blocking work runs in order on a thread of its own. Samples therefore reach listeners at once, however busy
    other exports are, and no file is removed while it is in use.
    """

    def __init__(self, recording: Recording, spec: ExportSpec, library: AudioLibrary) -> None:
        self._recording = recording
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._processor = AttemptProcessor(recording, spec, library)
        self._pending: deque[bytes] = deque()
        """Samples that the worker has not picked up yet."""
        self._pending_bytes = 0
        """Size of the samples that the worker has not stored yet."""
        self._progressed = asyncio.Event()
        """Set when the worker has stored some samples or has ended."""
        self._store_task: asyncio.Future[None] | None = None
        self._received_frames = 0

    async def open(self) -> None:
        """Creates the spool. Listeners can open it from now on."""
        await self._run_on_worker(self._processor.create_spool)
        self._recording.is_readable = True

    async def continue_suspended(self) -> None:
        """Goes on with the samples of a suspended attempt. Raises NotFound if they are damaged."""
        await self._run_on_worker(self._processor.continue_spool)
        self._received_frames = self._recording.frames

    async def write(self, pcm: bytes) -> None:
        """Takes whole frames of little-endian float32. Waits while the worker is behind.

        Raises InvalidArgument for a sample that is not finite, DataLoss for more frames than the header announced,
        errors of the disk, and Aborted if there is a newer attempt. An error may be raised by a later call.
        """
        attempt = self._recording.spec
        self._received_frames += len(pcm) // (attempt.channels * BYTES_PER_SAMPLE)
        if 0 < attempt.expected_frames < self._received_frames:
            raise _frame_count_error(attempt.expected_frames, "more arrived")
        self._pending.append(pcm)
        self._pending_bytes += len(pcm)
        if self._store_task is None or self._store_task.done():
            if self._store_task is not None:
                self._store_task.result()
            self._store_task = asyncio.ensure_future(self._store_pending())
        while self._pending_bytes > MAX_PENDING_BYTES and not self._store_task.done():
            self._progressed.clear()
            await self._progressed.wait()

    async def finish(self, pcm_sha256: str) -> ExportResult:
        """Masters all samples written so far and adds the file to the library. Raises the same errors as `write`.

        If that fails, the samples are kept, because all of them have arrived.
        """
        if self._store_task is not None:
            await asyncio.shield(self._store_task)
        recording, expected_frames = self._recording, self._recording.spec.expected_frames
        if not recording.frames:
            raise InvalidArgument("chunk", "the stream has no samples; send at least one frame")
        if expected_frames and recording.frames != expected_frames:
            raise _frame_count_error(expected_frames, f"{recording.frames} arrived")
        recording.mark_fully_received()
        return await self._complete(partial(self._processor.keep_received, pcm_sha256))

    async def suspend(self, pcm_sha256: str) -> ReceivedAudio:
        """Keeps all samples written so far for another attempt, and has listeners wait for it. Raises the same errors
        as `write`.
        """
        if self._store_task is not None:
            await asyncio.shield(self._store_task)
        if not self._recording.frames:
            raise InvalidArgument("chunk", "the stream has no samples; send at least one frame, or cancel the call")
        received = await self._run_on_worker(partial(self._processor.keep_suspended, pcm_sha256))
        self._recording.is_suspended = True
        return received

    async def resume(self) -> ExportResult:
        """Does the same with the samples that an earlier attempt received. Raises NotFound if they are damaged."""
        return await self._complete(self._processor.measure_received)

    async def run_until_aborted(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns the result of `work`. If the recording is aborted, cancels `work` and raises the error."""
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._wait_until_aborted())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._recording.raise_if_aborted()
            return task.result()
        finally:
            task.cancel()
            watch.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    async def close(self) -> None:
        """Ends the session. Unless the file is in the library, aborts the attempt and removes all of its files, except
        a spool that is kept.
        """
        recording, attempt = self._recording, self._recording.spec
        if self._store_task is not None:
            await asyncio.gather(self._store_task, return_exceptions=True)
        if not recording.is_suspended:
            recording.abort(broke_off_error(attempt))
        try:
            await self._run_on_worker(self._processor.clean_up)
        except OSError as error:
            # Not raised: the caller gets the error that ended the export. The next start of the service cleans up.
            log.warning("cleanup_failed", generation_id=attempt.generation_id, error=str(error))
        self._worker.shutdown(wait=False)
        if self._processor.result is not None:
            # The file was committed, although the caller went away before it got the result.
            recording.is_completed, recording.abort_error = True, None

    async def _complete(self, prepare: Callable[[], str]) -> ExportResult:
        """Calls `prepare`, which returns the SHA-256 of the samples, and masters them."""
        pcm_sha256 = await self._run_on_worker(prepare)
        result = await self._run_on_worker(partial(self._processor.master_and_commit, pcm_sha256))
        self._recording.is_completed = True
        return result

    async def _wait_until_aborted(self) -> None:
        while self._recording.abort_error is None:
            await self._recording.wait_for_change()

    async def _store_pending(self) -> None:
        try:
            while self._pending:
                await self._run_on_worker(self._drain_pending)
        except ServiceError as error:
            self._recording.abort(error)  # So that the caller gets the error even if it sends no more samples.
            raise
        finally:
            self._progressed.set()

    def _drain_pending(self) -> None:
        # What arrives while one piece is stored forms the next piece, without a detour over the event loop.
        while self._pending:
            self._processor.store(self._take_pending(), self._on_stored)

    def _take_pending(self) -> bytes:
        chunks, size = list[bytes](), 0
        while self._pending and size < MAX_PIECE_BYTES:
            chunks.append(self._pending.popleft())
            size += len(chunks[-1])
        return b"".join(chunks)

    def _on_stored(self, frames: int, size: int) -> None:
        self._loop.call_soon_threadsafe(self._add_stored, frames, size)

    def _add_stored(self, frames: int, size: int) -> None:
        self._pending_bytes -= size
        self._progressed.set()
        self._recording.add_frames(frames)

    async def _run_on_worker(self, function: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._worker, copy_context().run, function)


def _frame_count_error(expected_frames: int, actual: str) -> DataLoss:
    return DataLoss(
        f"the audio stream is inconsistent: its header announced {expected_frames} frames, but {actual}",
        reason="FRAMES_UNEXPECTED",
        metadata={"expected_frames": str(expected_frames)},
    )
