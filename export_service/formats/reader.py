"""A file from outside: whether it is whole audio that we take, and its samples."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_CHANNELS, MAX_SAMPLE_RATE_HZ, MIN_CLIP_SECONDS, MIN_SAMPLE_RATE_HZ
from export_service.dsp.loudness import Samples
from service_runtime.audio.block_size import BLOCK_FRAMES

EXPECTED = "must be a whole WAV (PCM or float) or FLAC file"
FORMATS = {"WAV", "WAVEX", "FLAC"}
SUBTYPES = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"}

RIFF_HEADER_BYTES = 12
NOT_KNOWN_BYTES = 0x7FFF_0000
"""A chunk's size from here on stands for "not known": what programs write into a pipe, sox 0x7FFFF000, ffmpeg
0xFFFFFFFF."""
NOT_KNOWN_FRAMES = 2**63 - 1
"""libsndfile's word for a FLAC file that does not tell its length."""


class SourceFile:
    """An open file whose header was found in order."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sample_rate_hz: int = file.samplerate
        self.channels: int = file.channels
        self.frames: int = file.frames

    def blocks(self) -> Iterator[Samples]:
        """All samples, [frames, channels] at a time. Raises InvalidArgument where they are damaged or not finite."""
        import soundfile

        position = 0
        while position < self.frames:
            try:
                block = self._file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                block = np.empty((0, self.channels), dtype=np.float32)
            if not len(block):
                raise _refused(f"it can't be read beyond frame {position} of {self.frames}: truncated or damaged")
            finite = np.isfinite(block)
            if not finite.all():
                frame, channel = np.argwhere(~finite)[0].tolist()
                raise InvalidArgument("data", f"frame {position + frame}, channel {channel} is {block[frame, channel]}")
            position += len(block)
            yield block


@contextmanager
def source_file(path: Path, max_seconds: float) -> Iterator[SourceFile]:
    """Opens the file. Raises InvalidArgument with field "data" where it is none that we take, saying what would be.

    Only what begins like WAV or FLAC is handed to libsndfile, which knows dozens of formats and takes a WAV file that
    was cut off for a shorter one.
    """
    import soundfile

    with path.open("rb") as raw:
        head = raw.read(RIFF_HEADER_BYTES)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        _require_whole_wav(path)
    elif head[:4] != b"fLaC":
        raise _refused("it is neither")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise _refused(f"it can't be read: {error.error_string}") from error
    with file:
        _require_taken(file, max_seconds)
        yield SourceFile(file)


def _require_taken(file: Any, max_seconds: float) -> None:
    if file.format not in FORMATS or file.subtype not in SUBTYPES:
        raise _refused(f"it is {file.format} with {file.subtype}")
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise InvalidArgument("data", f"must have 1 or 2 channels, not {file.channels}")
    if not MIN_SAMPLE_RATE_HZ <= file.samplerate <= MAX_SAMPLE_RATE_HZ:
        raise InvalidArgument(
            "data", f"must have {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} frames a second, not {file.samplerate}"
        )
    if file.frames == NOT_KNOWN_FRAMES:
        raise _refused("its header does not tell its length, as when it was written into a pipe; write it to a file")
    seconds = file.frames / file.samplerate
    if not MIN_CLIP_SECONDS <= seconds <= max_seconds:
        raise InvalidArgument(
            "data", f"must be {MIN_CLIP_SECONDS:g} to {max_seconds:g} s of audio, not {seconds:.3f} s"
        )


def _require_whole_wav(path: Path) -> None:
    """Raises InvalidArgument where the file ends before its samples do."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(RIFF_HEADER_BYTES)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                missing = file.tell() + length - size
                if missing > 0 and length < NOT_KNOWN_BYTES:
                    raise _refused(f"the last {missing} of its {length} bytes of samples are missing")
                return
            file.seek(length + length % 2, 1)  # Chunks are padded to an even length.
    raise _refused("it ends before its samples begin")


def _refused(why: str) -> InvalidArgument:
    return InvalidArgument("data", f"{EXPECTED}; {why}")
