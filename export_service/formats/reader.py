"""Opens audio files for reading from their start to their end."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from export_service.formats.m4a_file import M4aReader, is_mpeg4
from export_service.formats.native_file import NativeFileObject

OPUS_RATE_HZ = 48_000
GET_CURRENT_INFO, SET_ORIGINAL_SAMPLE_RATE = 0x1002, 0x1500
"""Commands of libsndfile (sndfile.h), which soundfile does not wrap."""


def open_sequential(file: Path | int) -> Any:
    """Opens a finished file for reading forwards only, from a path or from a descriptor, which stays open when the file
    is closed. Returns a soundfile.SoundFile, or for MPEG-4 what has its methods.

    Raises OSError, soundfile.LibsndfileError or DamagedFileError.
    """
    return M4aReader(file) if is_mpeg4(file) else open_sndfile_sequential(file)


def open_sndfile_sequential(file: Path | int | NativeFileObject, *, as_played: bool = False) -> Any:
    """Opens a soundfile.SoundFile that can only be read forwards, from a path, or from a descriptor or a file object,
    which stays open when the file is closed. Raises soundfile.LibsndfileError.

    soundfile follows every read with a seek to the current position. At a seek an MP3 decoder starts over, which can be
    audible, and in Vorbis libsndfile 1.2.2 lands next to the requested frame.

    With `as_played`, decodes Opus at 48 kHz as every player does (RFC 7845, section 5.1). By default libsndfile decodes
    it at the sample rate of the encoder's input, and then loudness and peaks differ.
    """
    sound = _sequential_file_class()(file, closefd=isinstance(file, Path))
    if as_played and sound.subtype == "OPUS":
        run_sndfile_command(sound, SET_ORIGINAL_SAMPLE_RATE, [OPUS_RATE_HZ], "int")
        run_sndfile_command(sound, GET_CURRENT_INFO, sound._info, "SF_INFO")
    return sound


def open_as_played(path: Path) -> Any:
    """Opens a finished file like `open_sequential`, but decodes it as players do: Opus at 48 kHz."""
    return M4aReader(path) if is_mpeg4(path) else open_sndfile_sequential(path, as_played=True)


def run_sndfile_command(sound: Any, command: int, data: Any, kind: str, count: int = 1) -> bool:
    """Runs sf_command of libsndfile on `count` values of the C type `kind`: those in a list, or in memory of cffi that
    the command may change. Returns whether libsndfile says that it succeeded.
    """
    import soundfile

    if isinstance(data, list):
        data = soundfile._ffi.new(f"{kind}[]", data)
    size = soundfile._ffi.sizeof(kind) * count
    return bool(soundfile._snd.sf_command(sound._file, command, data, size))


@cache
def _sequential_file_class() -> type[Any]:
    import soundfile

    class SequentialSoundFile(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return SequentialSoundFile
