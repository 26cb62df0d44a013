"""Audio as a listener gets it: live from a spool, or from the finished file."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

from dgx_music.errors import Aborted, NotFound, OutOfRange
from export_service.formats.reader import open_sequential
from export_service.library.filesystem import disk_errors
from export_service.library.store import FileFormat, attempt_of, file_errors, format_of
from export_service.streaming.recording import Recording, Take
from export_service.streaming.spool import BYTES_PER_SAMPLE
from export_service.threads import on_thread

READ_BYTES = 1 << 18
"""What a listener holds at most: a second of 32 kHz stereo."""
READ_FRAMES = 1 << 16
DECODED_FROM_THE_BEGINNING = {"OGG", "MP3"}
"""A lossy decoder's samples depend on those before: see `open_sequential`."""


class Level(Enum):
    """Which samples are asked for."""

    ANY = "any"
    """The file's where it is finished, else live ones."""
    LIVE = "live"
    FINAL = "final"


class LiveAudio:
    """Samples as generated, while they are being made and for a while after.

    Read from the spool at the listener's own pace: one that stops costs nothing, and slows nobody.
    """

    level = Level.LIVE

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def take(self) -> Take:
        """Whose samples they are."""
        return self._recording.take

    @property
    def frames(self) -> int:
        """How many there will be; 0 where that is not known yet."""
        return self._recording.expected_frames

    def require_start(self, start_frame: int) -> None:
        """Raises OutOfRange for a frame that is known never to come."""
        if self.frames:
            require_within(start_frame, self.frames, "start_frame", "frames")

    async def blocks(self, start_frame: int) -> AsyncGenerator[bytes, None]:
        """PCM from the frame on, as it arrives.

        Raises OutOfRange past the end, Aborted where the making broke off.
        """
        recording, frame_bytes = self._recording, self.take.channels * BYTES_PER_SAMPLE
        position = start_frame
        file = await self._open(position)
        try:
            while recording.broke_off is None:
                available = recording.frames - position
                if available > 0:
                    with disk_errors("reading the spool"):
                        pcm = await on_thread(
                            _read_at,
                            file,
                            position * frame_bytes,
                            min(available, READ_BYTES // frame_bytes) * frame_bytes,
                        )
                    position += len(pcm) // frame_bytes
                    yield pcm
                elif recording.whole:
                    require_within(position, recording.frames, "start_frame", "frames")
                    return
                else:
                    await recording.changed()
            raise self._broke_off(position)
        finally:
            file.close()

    async def _open(self, position: int) -> BinaryIO:
        try:
            with disk_errors("opening the spool"):
                return await on_thread(self._recording.spool.open)
        except NotFound:
            if self._recording.broke_off is not None:
                raise self._broke_off(position) from None
            raise

    def _broke_off(self, position: int) -> Aborted:
        return Aborted(
            f"the making of generation {self.take.generation_id}, attempt {self.take.attempt}, broke off; "
            f"for the next attempt's audio call again with start_frame {position}",
            reason="ATTEMPT_BROKE_OFF",
            metadata={"frames": str(position), "attempt": str(self.take.attempt)},
        )


class FinalAudio:
    """The samples of a finished file."""

    level = Level.FINAL

    def __init__(self, path: Path, take: Take) -> None:
        self._path = path
        self.take = take

    @classmethod
    async def open(cls, generation_id: str, path: Path) -> FinalAudio:
        """Looks at the file; raises Unavailable where it can't be read."""
        form, attempt = await on_thread(_inspect, path)
        return cls(path, Take(generation_id, attempt, form.sample_rate_hz, form.channels, form.frames))

    @property
    def frames(self) -> int:
        """Frames in the file."""
        return self.take.expected_frames

    def require_start(self, start_frame: int) -> None:
        """Raises OutOfRange past the end."""
        require_within(start_frame, self.frames, "start_frame", "frames")

    async def blocks(self, start_frame: int) -> AsyncGenerator[bytes, None]:
        """PCM from the frame on, which lies within."""
        file = await on_thread(_open_at, self._path, start_frame)
        try:
            while pcm := await on_thread(_read_frames, file, READ_BYTES // (self.take.channels * BYTES_PER_SAMPLE)):
                yield pcm
        finally:
            file.close()


def require_within(start: int, size: int, field: str, unit: str) -> None:
    """Raises OutOfRange where `start` lies past the end."""
    if start > size:
        raise OutOfRange(
            f"{field}: {start} is past the end: there are {size} {unit}",
            reason="PAST_THE_END",
            metadata={"field": field, unit: str(size)},
        )


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, offset)


def _inspect(path: Path) -> tuple[FileFormat, int]:
    with file_errors(path):
        return format_of(path), attempt_of(path)


def _open_at(path: Path, frame: int) -> Any:
    with file_errors(path):
        file = open_sequential(path)
        if file.format not in DECODED_FROM_THE_BEGINNING:
            file.seek(frame)
            return file
        while frame:
            frame -= len(file.read(min(frame, READ_FRAMES), dtype="float32"))
        return file


def _read_frames(file: Any, frames: int) -> bytes:
    samples = file.read(frames, dtype="float32", always_2d=True)
    return bytes(samples.data)
