"""A single export: receives samples, masters them and adds the file to the library."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dgx_music.errors import Aborted, DataLoss, InvalidArgument, ServiceError
from export_service.analysis.analyzer import Analysis, analyze
from export_service.analysis.features import FeatureExtractor
from export_service.dsp.arrays import Samples
from export_service.dsp.measurement import SignalMeter
from export_service.dsp.normalization import LoudnessTarget
from export_service.dsp.resampling import Resampler
from export_service.formats.provenance import Signer
from export_service.formats.writer import AudioFile
from export_service.library.filesystem import translate_disk_errors
from export_service.library.mastered_file import MasteredFile
from export_service.library.store import Library
from export_service.pipeline.mastering import master_to_file, resolve_loudness_target
from export_service.streaming.recording import Recording
from export_service.streaming.spool import BYTES_PER_SAMPLE
from export_service.tagging.sections import Section, scale_sections
from export_service.tagging.tags import Tags, build_file_tags
from service_runtime.audio.output_options import OutputOptions
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

MAX_PENDING_BYTES = 1 << 20
"""How many samples may wait for the worker: 4 s of 32 kHz stereo."""


@dataclass(frozen=True)
class ExportSpec:
    """What file to make of the samples."""

    options: OutputOptions
    tags: Tags
    """Already cleaned."""
    default_target: LoudnessTarget
    """Applies where the options do not set a loudness or a ceiling."""
    generator: str
    """Name and version of this software."""
    tempo_hint_bpm: float = 0.0
    """The tempo that the user asked for; 0 if none."""
    signer: Signer | None = None
    sections: tuple[Section, ...] = ()
    """In frames at the sample rate received."""


@dataclass(frozen=True)
class ExportResult:
    """The file of a completed export."""

    path: Path
    file: MasteredFile
    analysis: Analysis


class ExportSession:
    """Receives the samples of one attempt and makes a file of them.

    All blocking work runs in order on a thread of its own. Samples therefore reach listeners at once, however busy
    other exports are, and no file is removed while it is in use.
    """

    def __init__(self, recording: Recording, spec: ExportSpec, library: Library) -> None:
        self._recording, self._spec, self._library = recording, spec, library
        attempt = recording.spec
        self._staged = library.staging_path(attempt.generation_id, attempt.attempt)
        self._rate, self._channels = spec.options.resolve_for_source(attempt.sample_rate_hz, attempt.channels)
        self._measurement: SignalMeter | None = None
        self._features = FeatureExtractor(attempt.sample_rate_hz)
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._pending: deque[bytes] = deque()
        """Samples that the worker has not picked up yet."""
        self._pending_bytes = 0
        """Size of the samples that the worker has not stored yet."""
        self._progressed = asyncio.Event()
        """Set when the worker has stored some samples or has ended."""
        self._store_task: asyncio.Future[None] | None = None
        self._received_frames = 0
        self._stored_frames = 0
        self._result: ExportResult | None = None

    async def open(self) -> None:
        """Creates the spool. Listeners can open it from now on."""
        await self._run_on_worker(self._open)
        self._recording.is_readable = True

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

    async def finish(self) -> ExportResult:
        """Masters all samples written so far and adds the file to the library. Raises the same errors as `write`."""
        if self._store_task is not None:
            await asyncio.shield(self._store_task)
        recording, expected_frames = self._recording, self._recording.spec.expected_frames
        if not recording.frames:
            raise InvalidArgument("chunk", "the stream has no samples; send at least one frame")
        if expected_frames and recording.frames != expected_frames:
            raise _frame_count_error(expected_frames, f"{recording.frames} arrived")
        recording.mark_fully_received()
        result = await self._run_on_worker(self._master_and_commit)
        recording.is_completed = True
        return result

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
        """Ends the session. Unless the file is in the library, aborts the attempt and removes all of its files."""
        recording, attempt = self._recording, self._recording.spec
        if self._store_task is not None:
            await asyncio.gather(self._store_task, return_exceptions=True)
        recording.abort(
            Aborted(
                f"attempt {attempt.attempt} of generation {attempt.generation_id} was aborted",
                reason="ATTEMPT_BROKE_OFF",
            )
        )
        try:
            await self._run_on_worker(self._clean_up)
        except OSError as error:
            # Not raised: the caller gets the error that ended the export. The next start of the service cleans up.
            log.warning("cleanup_failed", generation_id=attempt.generation_id, error=str(error))
        self._worker.shutdown(wait=False)
        if self._result is not None:
            # The file was committed, although the caller went away before it got the result.
            recording.is_completed, recording.abort_error = True, None

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

    def _on_stored(self, frames: int, size: int) -> None:
        self._pending_bytes -= size
        self._progressed.set()
        self._recording.add_frames(frames)

    async def _run_on_worker(self, function: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._worker, function)

    # The methods below run on the worker thread.

    def _open(self) -> None:
        self._converter = self._new_converter()
        with translate_disk_errors("opening the spool"):
            self._recording.spool.create()
            # Measures at the file's sample rate, because resampling changes the figures by some hundredths of a dB.
            self._measurement = SignalMeter(self._rate, self._channels, self._staged.parent)

    def _drain_pending(self) -> None:
        # What arrives while one piece is stored forms the next piece, without a detour over the event loop.
        while self._pending:
            self._store(b"".join(self._pending.popleft() for _ in range(len(self._pending))))

    def _store(self, pcm: bytes) -> None:
        samples = np.frombuffer(pcm, dtype="<f4").reshape(-1, self._recording.spec.channels)
        finite = np.isfinite(samples)
        if not finite.all():
            frame, channel = np.argwhere(~finite)[0].tolist()
            raise InvalidArgument(
                "chunk.pcm",
                f"must be finite, but frame {self._stored_frames + frame}, channel {channel} is "
                f"{samples[frame, channel]}",
            )
        with translate_disk_errors("writing the spool"):
            self._recording.spool.append(pcm)
        # Before the measurement, so that listeners do not wait for it.
        self._loop.call_soon_threadsafe(self._on_stored, len(samples), len(pcm))
        self._stored_frames += len(samples)
        self._features.feed(samples)
        self._measure(self._converter.feed(samples))

    def _measure(self, samples: Samples) -> None:
        assert self._measurement is not None
        with translate_disk_errors("writing the envelope"):
            self._measurement.feed(samples)

    def _master_and_commit(self) -> ExportResult:
        recording, attempt, spec = self._recording, self._recording.spec, self._spec
        self._measure(self._converter.finish())
        assert self._measurement is not None
        analysis = analyze(self._features.finish(), spec.tempo_hint_bpm)
        frames = self._converter.out_frames
        tags = build_file_tags(
            spec.tags,
            attempt.generation_id,
            attempt.attempt,
            spec.generator,
            analysis,
            spec.options.publication,
            scale_sections(spec.sections, attempt.sample_rate_hz, self._rate, frames),
        )
        audio = AudioFile(
            format=spec.options.format,
            sample_rate_hz=self._rate,
            channels=self._channels,
            frames=frames,
            tags=tags,
            seed=uuid.UUID(attempt.generation_id).int,
            signer=spec.signer,
        )
        target = resolve_loudness_target(spec.options, spec.default_target)
        with translate_disk_errors("writing the file"):
            file = master_to_file(self._staged, audio, self._measurement, target, self._blocks)
            path = self._library.commit(
                self._staged, attempt.generation_id, audio.codec.extension, recording.raise_if_aborted
            )
            self._result = ExportResult(path, file, analysis)
            recording.spool.finish()
        return self._result

    def _blocks(self) -> Iterator[Samples]:
        converter = self._new_converter()
        for block in self._recording.spool.blocks(self._recording.spec.channels):
            self._recording.raise_if_aborted()
            yield converter.feed(block)
        yield converter.finish()

    def _new_converter(self) -> Resampler:
        attempt = self._recording.spec
        return Resampler(attempt.sample_rate_hz, attempt.channels, self._rate, self._channels)

    def _clean_up(self) -> None:
        if self._measurement is not None:
            self._measurement.close()
        if self._result is None:
            self._recording.spool.remove()
            self._staged.unlink(missing_ok=True)


def _frame_count_error(expected_frames: int, actual: str) -> DataLoss:
    return DataLoss(
        f"the audio stream is inconsistent: its header announced {expected_frames} frames, but {actual}",
        reason="FRAMES_UNEXPECTED",
        metadata={"expected_frames": str(expected_frames)},
    )
