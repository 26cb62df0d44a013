"""Opens audio files for reading from their start to their end."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from dgx_music.limits import MAX_CHANNELS, MAX_SAMPLE_RATE_HZ, MIN_SAMPLE_RATE_HZ
from export_service.dsp.arrays import Samples
from export_service.formats.m4a_file import DamagedFileError, M4aReader, is_mpeg4
from export_service.formats.native_file import NativeFileObject
from export_service.tagging.ogg import check_pages

OGG_MAGIC = b"OggS"
OPUS_RATE_HZ = 48_000
GET_CURRENT_INFO, SET_ORIGINAL_SAMPLE_RATE = 0x1002, 0x1500
"""Commands of libsndfile (sndfile.h), which soundfile does not wrap."""


class FinishedAudio:
    """The samples of a file of ours, which may have been damaged since it was written.

    All methods raise DamagedFileError if the file is not as we write files: at a sample rate and with channels that we
    support, with as many samples as its header says, all of them finite.
    """

    def __init__(self, decoder: Any) -> None:
        """`decoder` is a soundfile.SoundFile, or has its methods."""
        self._decoder = decoder
        self.format: str = decoder.format
        self.subtype: str = decoder.subtype
        self.samplerate: int = decoder.samplerate
        self.channels: int = decoder.channels
        self.frames: int = decoder.frames
        self._position = 0
        is_plausible = MIN_SAMPLE_RATE_HZ <= self.samplerate <= MAX_SAMPLE_RATE_HZ and self.channels <= MAX_CHANNELS
        if not is_plausible or self.frames < 1:
            decoder.close()
            raise DamagedFileError(
                f"its header says {self.frames} frames of {self.channels} channels at {self.samplerate} Hz"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, frames: int | None = None, out: Samples | None = None) -> Samples:
        """Returns the next frames, as many as `out` takes, or by default all that are left: [frames, channels] of
        float32; fewer at the end.
        """
        import soundfile

        if frames is None:
            frames = self.frames - self._position if out is None else len(out)
        try:
            samples: Samples = self._decoder.read(frames, dtype="float32", always_2d=True, out=out)
        except soundfile.LibsndfileError as error:
            raise DamagedFileError(error.error_string) from error
        if not np.isfinite(samples).all():
            raise DamagedFileError(f"a sample after frame {self._position} is not finite")
        self._position += len(samples)
        if len(samples) < frames and self._position < self.frames:
            raise DamagedFileError(f"it ends after {self._position} of its {self.frames} frames")
        return samples

    def seek(self, frame: int) -> None:
        """Goes to a frame. Not for lossy formats, see `open_sndfile_sequential`."""
        import soundfile

        try:
            self._decoder.seek(frame)
        except soundfile.LibsndfileError as error:
            raise DamagedFileError(error.error_string) from error
        self._position = frame

    def close(self) -> None:
        """Closes the decoder, and the file if it was opened by its path."""
        self._decoder.close()


def open_sequential(file: Path | int, *, header_only: bool = False, as_played: bool = False) -> FinishedAudio:
    """Opens a finished file for reading forwards only, from a path or from a descriptor, which stays open when the file
    is closed. With `header_only`, damage that only its samples would show is not reported; `as_played` decodes it as
    `open_as_played` does.

    Raises OSError and DamagedFileError.
    """
    if not header_only:
        _check_pages(file)
    return _open(file, as_played=as_played)


def _check_pages(file: Path | int) -> None:
    """Raises DamagedFileError if pages of an Ogg file are damaged, which libsndfile would skip."""
    with open(file, "rb", closefd=isinstance(file, Path)) as opened:
        if os.pread(opened.fileno(), len(OGG_MAGIC), 0) != OGG_MAGIC:
            return
        try:
            check_pages(opened)
        except ValueError as error:
            raise DamagedFileError(str(error)) from error
        os.lseek(opened.fileno(), 0, os.SEEK_SET)  # The decoder starts where the descriptor is.


def open_as_played(path: Path) -> FinishedAudio:
    """Opens a file that has just been written like `open_sequential`, but decodes it as players do: Opus at 48 kHz."""
    return _open(path, as_played=True)


def _open(file: Path | int, *, as_played: bool) -> FinishedAudio:
    import soundfile

    if is_mpeg4(file):
        return FinishedAudio(M4aReader(file))
    try:
        return FinishedAudio(open_sndfile_sequential(file, as_played=as_played))
    except soundfile.LibsndfileError as error:
        raise DamagedFileError(error.error_string) from error


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
