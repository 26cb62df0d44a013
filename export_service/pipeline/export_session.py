"""One export: samples in, a finished file in the library."""

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
from export_service.formats.tags import Tags, build_file_tags
from export_service.formats.writer import AudioFile
from export_service.library.filesystem import disk_errors
from export_service.library.mastered_file import Finished
from export_service.library.store import Library
from export_service.pipeline.mastering import aim_for, finish
from export_service.streaming.recording import Recording
from export_service.streaming.spool import BYTES_PER_SAMPLE
from service_runtime.audio.output_options import OutputOptions
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")

PENDING_BYTES = 1 << 20
"""Samples that may wait for the worker: 4 s of 32 kHz stereo."""


@dataclass(frozen=True)
class Finish:
    """What is to become of the samples."""

    options: OutputOptions
    tags: Tags
    """Cleaned."""
    default_aim: LoudnessTarget
    """Where the options do not say how loud."""
    generator: str
    """Our own name and version."""
    tempo_hint_bpm: float = 0.0
    """The tempo that was asked for; 0 if none was."""
    signer: Signer | None = None


@dataclass(frozen=True)
class Landed:
    """The finished file."""

    path: Path
    finished: Finished
    analysis: Analysis


class Session:
    """Takes in the samples of one attempt.

    All that blocks runs in order on a thread of its own, so that samples reach listeners at once however busy other
    exports are, and nothing is cleaned up while it is in use.
    """

    def __init__(self, recording: Recording, finish: Finish, library: Library) -> None:
        self._recording, self._finish, self._library = recording, finish, library
        take = recording.take
        self._part = library.part(take.generation_id, take.attempt)
        self._rate, self._channels = finish.options.resolve_for_source(take.sample_rate_hz, take.channels)
        self._measurement: SignalMeter | None = None
        self._features = FeatureExtractor(take.sample_rate_hz)
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="export")
        self._pending: deque[bytes] = deque()
        """What the worker has not taken yet."""
        self._pending_bytes = 0
        """What it has not stored yet."""
        self._room = asyncio.Event()
        """It has stored some, or ended."""
        self._storing: asyncio.Future[None] | None = None
        self._received_frames = 0
        self._stored_frames = 0
        self._made: Landed | None = None

    async def open(self) -> None:
        """Opens the spool; listeners can come."""
        await self._work(self._open)
        self._recording.opened = True

    async def write(self, pcm: bytes) -> None:
        """Takes in whole frames of little-endian float32; waits while the worker is behind.

        Raises InvalidArgument for a sample that is no number, DataLoss for more frames than were announced, and what
        the disk or a newer attempt has to say. What is wrong may show at a later call.
        """
        take = self._recording.take
        self._received_frames += len(pcm) // (take.channels * BYTES_PER_SAMPLE)
        if 0 < take.expected_frames < self._received_frames:
            raise _unexpected(take.expected_frames, "more came")
        self._pending.append(pcm)
        self._pending_bytes += len(pcm)
        if self._storing is None or self._storing.done():
            if self._storing is not None:
                self._storing.result()
            self._storing = asyncio.ensure_future(self._store_pending())
        while self._pending_bytes > PENDING_BYTES and not self._storing.done():
            self._room.clear()
            await self._room.wait()

    async def finish(self) -> Landed:
        """Makes the file of all samples written, and lands it. Raises as `write` does."""
        if self._storing is not None:
            await asyncio.shield(self._storing)
        recording, take = self._recording, self._recording.take
        if not recording.frames:
            raise InvalidArgument("chunk", "the stream has no samples; send at least one frame")
        if take.expected_frames and recording.frames != take.expected_frames:
            raise _unexpected(take.expected_frames, f"{recording.frames} came")
        recording.complete()
        landed = await self._work(self._land)
        recording.landed = True
        return landed

    async def unless_broken_off(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled as soon as the recording breaks off."""
        task = asyncio.ensure_future(work)
        watch = asyncio.ensure_future(self._broken_off())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self._recording.require_unbroken()
            return task.result()
        finally:
            task.cancel()
            watch.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    async def close(self) -> None:
        """Ends the session; unless the file has landed, nothing is left of it."""
        recording = self._recording
        if self._storing is not None:
            await asyncio.gather(self._storing, return_exceptions=True)
        recording.break_off(
            Aborted(
                f"the making of generation {recording.take.generation_id}, attempt {recording.take.attempt}, broke off",
                reason="ATTEMPT_BROKE_OFF",
            )
        )
        try:
            await self._work(self._clean_up)
        except OSError as error:
            # What broke it off is what the caller has to hear; the next start sweeps what a failing disk kept.
            log.warning("left behind until the next start", error=str(error))
        self._worker.shutdown(wait=False)
        if self._made is not None:
            # Landed, although whoever asked for it went away before it was told.
            recording.landed, recording.broke_off = True, None

    async def _broken_off(self) -> None:
        while self._recording.broke_off is None:
            await self._recording.changed()

    async def _store_pending(self) -> None:
        try:
            while self._pending:
                await self._work(self._store_all)
        except ServiceError as error:
            self._recording.break_off(error)  # Told at once, even if no more samples come.
            raise
        finally:
            self._room.set()

    def _stored(self, frames: int, size: int) -> None:
        self._pending_bytes -= size
        self._room.set()
        self._recording.grow(frames)

    async def _work(self, function: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._worker, function)

    # What follows runs on the worker.

    def _open(self) -> None:
        self._converter = self._new_converter()
        with disk_errors("opening the spool"):
            self._recording.spool.create()
            # At the file's rate: other samples of the same waveform, and other figures by some hundredths of a dB.
            self._measurement = SignalMeter(self._rate, self._channels, self._part.parent)

    def _store_all(self) -> None:
        while self._pending:  # What came while it worked is its next piece: it waits for nobody in between.
            self._store(b"".join(self._pending.popleft() for _ in range(len(self._pending))))

    def _store(self, pcm: bytes) -> None:
        samples = np.frombuffer(pcm, dtype="<f4").reshape(-1, self._recording.take.channels)
        finite = np.isfinite(samples)
        if not finite.all():
            frame, channel = np.argwhere(~finite)[0].tolist()
            raise InvalidArgument(
                "chunk.pcm", f"frame {self._stored_frames + frame}, channel {channel} is {samples[frame, channel]}"
            )
        with disk_errors("writing the spool"):
            self._recording.spool.append(pcm)
        # Listeners first: measuring can wait.
        self._loop.call_soon_threadsafe(self._stored, len(samples), len(pcm))
        self._stored_frames += len(samples)
        self._features.feed(samples)
        self._measure(self._converter.feed(samples))

    def _measure(self, samples: Samples) -> None:
        assert self._measurement is not None
        with disk_errors("writing the envelope"):
            self._measurement.feed(samples)

    def _land(self) -> Landed:
        recording, take, options = self._recording, self._recording.take, self._finish.options
        self._measure(self._converter.finish())
        assert self._measurement is not None
        analysis = analyze(self._features.finish(), self._finish.tempo_hint_bpm)
        audio = AudioFile(
            format=options.format,
            sample_rate_hz=self._rate,
            channels=self._channels,
            frames=self._converter.out_frames,
            tags=build_file_tags(self._finish.tags, take.generation_id, take.attempt, self._finish.generator, analysis),
            seed=uuid.UUID(take.generation_id).int,
            signer=self._finish.signer,
        )
        with disk_errors("writing the file"):
            finished = finish(
                self._part,
                audio,
                self._measurement,
                aim_for(options, self._finish.default_aim),
                self._blocks,
            )
            path = self._library.land(self._part, take.generation_id, audio.codec.extension, recording.require_unbroken)
            self._made = Landed(path, finished, analysis)
            recording.spool.finish()
        return self._made

    def _blocks(self) -> Iterator[Samples]:
        converter = self._new_converter()
        for block in self._recording.spool.blocks(self._recording.take.channels):
            self._recording.require_unbroken()
            yield converter.feed(block)
        yield converter.finish()

    def _new_converter(self) -> Resampler:
        take = self._recording.take
        return Resampler(take.sample_rate_hz, take.channels, self._rate, self._channels)

    def _clean_up(self) -> None:
        if self._measurement is not None:
            self._measurement.close()
        if self._made is None:
            self._recording.spool.remove()
            self._part.unlink(missing_ok=True)


def _unexpected(expected_frames: int, came: str) -> DataLoss:
    return DataLoss(
        f"the audio stream does not add up: its header announced {expected_frames} frames, {came}",
        reason="FRAMES_UNEXPECTED",
        metadata={"expected_frames": str(expected_frames)},
    )
