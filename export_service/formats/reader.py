"""Reads audio files: files from outside, which are validated first, and finished files of our own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_CHANNELS, MAX_SAMPLE_RATE_HZ, MIN_DURATION_SECONDS, MIN_SAMPLE_RATE_HZ
from export_service.dsp.arrays import Samples
from export_service.formats.m4a_file import M4aReader, is_mpeg4
from service_runtime.audio.block_size import BLOCK_FRAMES

SOURCE_FILE_REQUIREMENT = "must be a complete WAV (PCM or float) or FLAC file"
FORMATS = {"WAV", "WAVEX", "FLAC"}
SUBTYPES = {"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"}

RIFF_HEADER_BYTES = 12
MIN_UNKNOWN_CHUNK_BYTES = 0x7FFF_0000
"""A chunk size from here on means "unknown". Programs that write into a pipe use such values: sox 0x7FFFF000, ffmpeg
0xFFFFFFFF."""
OPUS_RATE_HZ = 48_000
SFC_GET_CURRENT_SF_INFO, SFC_SET_ORIGINAL_SAMPLERATE = 0x1002, 0x1500
"""Commands of libsndfile (sndfile.h)."""
UNKNOWN_FRAMES = 2**63 - 1
"""What libsndfile reports for a FLAC file whose header does not contain its length."""


class SourceFile:
    """An open file from outside whose header is valid."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.sample_rate_hz: int = file.samplerate
        self.channels: int = file.channels
        self.frames: int = file.frames

    def blocks(self) -> Iterator[Samples]:
        """Yields all samples: [frames, channels] each. Raises InvalidArgument if they are damaged or not finite."""
        import soundfile

        position = 0
        while position < self.frames:
            try:
                block = self._file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                block = np.empty((0, self.channels), dtype=np.float32)
            if not len(block):
                raise _invalid_file(f"it can't be read beyond frame {position} of {self.frames}: truncated or damaged")
            finite = np.isfinite(block)
            if not finite.all():
                frame, channel = np.argwhere(~finite)[0].tolist()
                value = block[frame, channel]
                raise InvalidArgument(
                    "data", f"frame {position + frame}, channel {channel} is {value}; every sample must be finite"
                )
            position += len(block)
            yield block


@contextmanager
def open_source_file(path: Path, max_seconds: float) -> Iterator[SourceFile]:
    """Opens and validates a file from outside. Raises InvalidArgument with field "data" if it is not acceptable.

    Only files that start like WAV or FLAC are passed to libsndfile, which supports dozens of formats and reads a
    truncated WAV file as if it were a shorter one.
    """
    import soundfile

    with path.open("rb") as raw:
        head = raw.read(RIFF_HEADER_BYTES)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        _require_complete_wav(path)
    elif head[:4] != b"fLaC":
        raise _invalid_file("it is neither")
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise _invalid_file(f"it can't be read: {error.error_string}") from error
    with file:
        _require_acceptable(file, max_seconds)
        yield SourceFile(file)


def open_sequential(file: Path | int) -> Any:
    """Opens a finished file for reading forwards only, from a path or from a descriptor, which stays open when the file
    is closed. Returns a soundfile.SoundFile, or for MPEG-4 what has its methods.

    Raises OSError, soundfile.LibsndfileError or DamagedFileError.

    soundfile follows every read with a seek to the current position. At a seek an MP3 decoder starts over, which can be
    audible, and in Vorbis libsndfile 1.2.2 lands next to the requested frame.
    """
    if is_mpeg4(file):
        return M4aReader(file)
    return _sequential_file_class()(file, closefd=isinstance(file, Path))


def open_as_played(path: Path) -> Any:
    """Does what `open_sequential` does, but decodes Opus at 48 kHz as every player does (RFC 7845, section 5.1).

    libsndfile decodes it at the sample rate of the encoder's input, and then loudness and peaks differ.
    """
    import soundfile

    file = open_sequential(path)
    if file.subtype == "OPUS":
        library, ffi = soundfile._snd, soundfile._ffi  # soundfile itself has neither of these commands.
        library.sf_command(file._file, SFC_SET_ORIGINAL_SAMPLERATE, ffi.new("int*", OPUS_RATE_HZ), ffi.sizeof("int"))
        library.sf_command(file._file, SFC_GET_CURRENT_SF_INFO, file._info, ffi.sizeof("SF_INFO"))
    return file


@cache
def _sequential_file_class() -> type[Any]:
    import soundfile

    class SequentialSoundFile(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return SequentialSoundFile


def _require_acceptable(file: Any, max_seconds: float) -> None:
    if file.format not in FORMATS or file.subtype not in SUBTYPES:
        raise _invalid_file(f"it is {file.format} with {file.subtype}")
    if not 1 <= file.channels <= MAX_CHANNELS:
        raise InvalidArgument("data", f"must have 1 or 2 channels, not {file.channels}")
    if not MIN_SAMPLE_RATE_HZ <= file.samplerate <= MAX_SAMPLE_RATE_HZ:
        raise InvalidArgument(
            "data",
            f"must have a sample rate of {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz, not {file.samplerate} Hz",
        )
    if file.frames == UNKNOWN_FRAMES:
        raise _invalid_file(
            "its header does not contain its length, as happens when it is written into a pipe; write it to a file"
        )
    seconds = file.frames / file.samplerate
    if not MIN_DURATION_SECONDS <= seconds <= max_seconds:
        raise InvalidArgument(
            "data", f"must be {MIN_DURATION_SECONDS:g} to {max_seconds:g} s of audio, not {seconds:.3f} s"
        )


def _require_complete_wav(path: Path) -> None:
    """Raises InvalidArgument if the file ends before its samples do."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(RIFF_HEADER_BYTES)
        while len(head := file.read(8)) == 8:
            name, length = struct.unpack("<4sI", head)
            if name == b"data":
                missing = file.tell() + length - size
                if missing > 0 and length < MIN_UNKNOWN_CHUNK_BYTES:
                    raise _invalid_file(f"the last {missing} of its {length} bytes of samples are missing")
                return
            file.seek(length + length % 2, 1)  # Chunks are padded to an even length.
    raise _invalid_file("it ends before its samples begin")


def _invalid_file(problem: str) -> InvalidArgument:
    return InvalidArgument("data", f"{SOURCE_FILE_REQUIREMENT}; {problem}")
