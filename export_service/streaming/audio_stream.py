"""Audio for listeners: live from a spool, or from a finished file."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from dgx_music.errors import Aborted, DataLoss, NotFound, OutOfRange
from export_service.formats.reader import FinishedAudio, open_sequential
from export_service.library.filesystem import translate_disk_errors
from export_service.library.store import (
    read_attempt,
    translate_file_errors,
)
from export_service.streaming.recording import AttemptSpec, Recording
from export_service.streaming.spool import BYTES_PER_SAMPLE
from export_service.threads import run_in_thread
from service_runtime.audio.block_size import BLOCK_FRAMES

MAX_READ_BYTES = 1 << 18
"""Memory for each listener: one second of 32 kHz stereo."""
SEQUENTIAL_CONTAINERS = {"OGG", "MP3", "M4A"}
"""Decoded from the beginning instead of seeking: a lossy decoder's output depends on the preceding samples, see
`open_sequential`."""


class AudioLevel(Enum):
    """Which samples a listener asks for."""

    ANY = "any"
    """The finished file if there is one, live samples otherwise."""
    LIVE = "live"
    """The samples as generated."""
    FINAL = "final"
    """The samples of the finished file."""


class LiveAudio:
    """Samples as generated, available while the export runs and for some time afterwards.

    Each listener reads from the spool at its own pace, so a slow or stalled one delays neither
    the export nor other listeners.
    """

    level = AudioLevel.LIVE

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def close(self) -> None:
        """Does nothing: the file is open only while samples are read."""

    @property
    def spec(self) -> AttemptSpec:
        """The attempt that the samples belong to."""
        return self._recording.spec

    @property
    def frames(self) -> int:
        """The total number of frames; 0 while it is unknown."""
        return self._recording.expected_frames

    def validate_start_frame(self, start_frame: int) -> None:
        """Raises OutOfRange if the frame is known to be past the end."""
        if self.frames:
            validate_position(start_frame, self.frames, "start_frame", "frames")

    async def blocks(self, start_frame: int) -> AsyncGenerator[bytes, None]:
        """Yields PCM from the given frame on, as it arrives.

        Raises OutOfRange if the frame turns out to be past the end, Aborted if the attempt is aborted, and DataLoss if
        the spool was truncated.
        """
        recording, frame_bytes = self._recording, self.spec.channels * BYTES_PER_SAMPLE
        position = start_frame
        file = await self._open(position)
        try:
            while recording.abort_error is None:
                available = recording.frames - position
                if available > 0:
                    size = min(available, MAX_READ_BYTES // frame_bytes) * frame_bytes
                    with translate_disk_errors("reading the spool"):
                        pcm = await run_in_thread(_read_at, file, position * frame_bytes, size)
                    if len(pcm) < size:
                        raise DataLoss(
                            f"the spool ends after frame {position + len(pcm) // frame_bytes} of {recording.frames}; "
                            "request the finished file with level FINAL",
                            reason="SPOOL_DAMAGED",
                        )
                    position += size // frame_bytes
                    yield pcm
                elif recording.is_fully_received:
                    validate_position(position, recording.frames, "start_frame", "frames")
                    return
                else:
                    await recording.wait_for_change()
            raise self._aborted_error(position)
        finally:
            file.close()

    async def _open(self, position: int) -> BinaryIO:
        try:
            with translate_disk_errors("opening the spool"):
                return await run_in_thread(self._recording.spool.open)
        except NotFound:
            if self._recording.abort_error is not None:
                raise self._aborted_error(position) from None
            raise

    def _aborted_error(self, position: int) -> Aborted:
        return Aborted(
            f"attempt {self.spec.attempt} of generation {self.spec.generation_id} was aborted; "
            f"to hear the next attempt, retry with start_frame={position}",
            reason="ATTEMPT_BROKE_OFF",
            metadata={"frames": str(position), "attempt": str(self.spec.attempt)},
        )


class FinalAudio:
    """The samples of a finished file, which stays open until `close`, so that they are those that its header describes,
    whatever replaces it meanwhile.
    """

    level = AudioLevel.FINAL

    def __init__(self, path: Path, file: BinaryIO, spec: AttemptSpec) -> None:
        self._path, self._file = path, file
        self.spec = spec

    @classmethod
    async def open(cls, generation_id: str, path: Path) -> FinalAudio:
        """Opens the file, and reads its header. Raises NotFound if there is none, Unavailable if it can't be read."""
        return await run_in_thread(_open_file, generation_id, path)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    @property
    def frames(self) -> int:
        """The number of frames in the file."""
        return self.spec.expected_frames

    def validate_start_frame(self, start_frame: int) -> None:
        """Raises OutOfRange if the frame is past the end."""
        validate_position(start_frame, self.frames, "start_frame", "frames")

    async def blocks(self, start_frame: int) -> AsyncGenerator[bytes, None]:
        """Yields PCM from the given frame on, which must have been validated. May be called once."""
        block_frames = MAX_READ_BYTES // (self.spec.channels * BYTES_PER_SAMPLE)
        decoder = await run_in_thread(_open_at, self._path, self._file, start_frame)
        try:
            while pcm := await run_in_thread(_read_frames, self._path, decoder, block_frames):
                yield pcm
        finally:
            decoder.close()


def validate_position(start: int, size: int, field: str, unit: str) -> None:
    """Raises OutOfRange if `start` is past the end. `unit` names what `size` counts, "frames" or "bytes"."""
    if start > size:
        raise OutOfRange(
            f"{field}: {start} is past the end; there are {size} {unit}",
            reason="PAST_THE_END",
            metadata={"field": field, unit: str(size)},
        )


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, offset)


def _open_file(generation_id: str, path: Path) -> FinalAudio:
    with translate_file_errors(path):
        while True:
            with ExitStack() as stack:
                file = stack.enter_context(path.open("rb"))
                attempt = read_attempt(path)
                if not os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    continue  # It was replaced meanwhile.
                with open_sequential(file.fileno(), header_only=True) as decoder:
                    spec = AttemptSpec(generation_id, attempt, decoder.samplerate, decoder.channels, decoder.frames)
                stack.pop_all()
                return FinalAudio(path, file, spec)


def _open_at(path: Path, opened: BinaryIO, frame: int) -> FinishedAudio:
    """Decodes the open audio file, from `frame` on."""
    opened.seek(0)
    with translate_file_errors(path), ExitStack() as stack:
        file = stack.enter_context(open_sequential(opened.fileno()))
        if file.format not in SEQUENTIAL_CONTAINERS:
            file.seek(frame)
        else:
            while frame and (count := len(file.read(min(frame, BLOCK_FRAMES)))):
                frame -= count
        stack.pop_all()
        return file


def _read_frames(path: Path, file: FinishedAudio, frames: int) -> bytes:
    with translate_file_errors(path):
        return bytes(file.read(frames).data)
