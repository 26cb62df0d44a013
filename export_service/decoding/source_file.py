"""Opens audio files from outside: recognizes and decodes them, and validates what comes out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dgx_music.errors import InvalidArgument
from dgx_music.limits import MAX_CHANNELS, MAX_SAMPLE_RATE_HZ, MIN_DURATION_SECONDS, MIN_SAMPLE_RATE_HZ
from export_service.decoding.decoded_audio import DecodedAudio, DecodeError, UnsupportedEncodingError
from export_service.decoding.file_view import FileView
from export_service.decoding.pyav_decoder import can_use_pyav, open_with_pyav
from export_service.decoding.signatures import HEAD_BYTES, FileKind, is_mpeg_audio_frame, recognize
from export_service.decoding.sndfile_decoder import open_with_sndfile
from export_service.decoding.surround import can_mix_down, mix_down
from export_service.dsp.arrays import Samples
from export_service.tagging import id3
from service_runtime.optional_deps import install_extra_command

SOURCE_FILE_REQUIREMENT = "must be a complete audio file, such as WAV, AIFF, CAF, FLAC, MP3, Ogg or Opus"
CONVERT_HINT = "`ffmpeg -i INPUT OUTPUT.flac`"

MAX_AMPLITUDE = 1000.0
"""Relative to full scale: +60 dBFS. Nothing that was meant for ±1 is louder."""
ID3_HAS_FOOTER = 0x10
"""Flag of a tag that ends with a copy of its header."""
MAX_PADDING_BYTES = 1 << 16
"""Zeros that are skipped between an ID3 tag and the audio of an MP3 file."""


class SourceFile:
    """An open file from outside whose header is valid."""

    def __init__(self, audio: DecodedAudio, max_seconds: float) -> None:
        self._audio, self._max_seconds = audio, max_seconds
        self.description = audio.description
        """Encoding and container, e.g. "AIFF, 24-bit PCM"."""
        self.sample_rate_hz = audio.sample_rate_hz
        self.source_channels = audio.channels
        """Channels of the file."""
        self.channels = min(audio.channels, MAX_CHANNELS)
        """Channels of `blocks`: surround sound is mixed down to stereo."""
        self._limit_frames = int(max_seconds * audio.sample_rate_hz)
        self.max_frames = self._limit_frames if audio.frames is None else min(audio.frames, self._limit_frames)
        """How many frames there are at most, unless the file has more than it says."""
        self.frames_read = 0
        """How many frames `blocks` has yielded."""

    def blocks(self) -> Iterator[Samples]:
        """Yields all samples: [frames, channels] each. Raises InvalidArgument if they are damaged, not finite, absurdly
        loud, or outside the limits on the length.
        """
        for block in self._decode():
            if not np.max(np.abs(block)) <= MAX_AMPLITUDE:  # Also NaN.
                raise _invalid_sample(block, self.frames_read)
            self.frames_read += len(block)
            if self.frames_read > self._limit_frames:
                raise _invalid_length(self._max_seconds, "and is longer")
            yield block if self.channels == self.source_channels else mix_down(block, self._audio.layout or ())
        if self.frames_read < MIN_DURATION_SECONDS * self.sample_rate_hz:
            raise _invalid_length(self._max_seconds, f"not {self.frames_read / self.sample_rate_hz:.3f} s")

    def _decode(self) -> Iterator[Samples]:
        """Yields what is decoded; raises InvalidArgument if that is not all."""
        frames, tolerance = self._audio.frames, self._audio.tolerance_frames
        of_all = "" if frames is None else f" of {frames}"
        try:
            yield from self._audio.blocks
        except DecodeError as error:
            raise _invalid_file(f"it can't be read beyond frame {self.frames_read}{of_all}: {error}") from error
        if frames is not None and self.frames_read < frames - tolerance:
            raise _invalid_file(f"it can't be read beyond frame {self.frames_read}{of_all}: truncated or damaged")
        if frames is not None and self.frames_read > frames + tolerance:
            raise _invalid_file(f"it is damaged: it has {self.frames_read} frames, but its header says {frames}")


@contextmanager
def open_source_file(path: Path, max_seconds: float) -> Iterator[SourceFile]:
    """Opens and validates a file from outside. Raises InvalidArgument with field "data" if it is not acceptable.

    libsndfile decodes what it supports. FFmpeg gets only files of a recognized kind that libsndfile does not read.
    Temporary files are created beside the file. Raises OSError if the disk fails.
    """
    with path.open("rb") as raw, ExitStack() as stack:
        try:
            view = _skip_id3(raw)
            if not view.size:
                raise DecodeError("it is empty")
            audio = _open_decoder(stack, view, recognize(view.read_at(0, HEAD_BYTES)), path.parent)
        except DecodeError as error:
            raise _invalid_file(str(error)) from error
        _require_acceptable(audio, max_seconds)
        yield SourceFile(audio, max_seconds)


def _open_decoder(stack: ExitStack, view: FileView, kind: FileKind | None, folder: Path) -> DecodedAudio:
    if kind is None:
        raise DecodeError(
            "it is not recognized as an audio file; if it contains samples without a header, add one, for example with "
            "`ffmpeg -f s16le -ar 44100 -ac 2 -i INPUT OUTPUT.wav`"
        )
    if not (kind.container or kind.demuxer):
        raise DecodeError(f"it is {kind.name}")
    try:
        if kind.container is not None:
            with suppress(UnsupportedEncodingError) if kind.demuxer else nullcontext():
                return stack.enter_context(open_with_sndfile(view, kind.container, folder))
        if not can_use_pyav():
            raise DecodeError(
                "its encoding can only be read with another library: convert the file, for example with "
                f"{CONVERT_HINT}, or install the library on the server: `{install_extra_command('m4a')}`"
            )
        return stack.enter_context(open_with_pyav(view, kind))
    except DecodeError as error:
        raise DecodeError(f"it is {kind.name}, but {error}") from error


def _skip_id3(raw: BinaryIO) -> FileView:
    """Returns the file without the ID3v2 tags at its start (ID3v2.4, section 3.1), and without zeros before MP3."""
    start = 0
    while True:
        raw.seek(start)
        header = raw.read(id3.HEADER.size)
        if len(header) < id3.HEADER.size or not header.startswith(b"ID3"):
            break
        *_, flags, size = id3.HEADER.unpack(header)
        start += id3.HEADER.size * (2 if flags & ID3_HAS_FOOTER else 1) + id3.decode_size(size)
    raw.seek(start)
    padding = raw.read(MAX_PADDING_BYTES)
    if start and not padding:
        raise DecodeError("it ends within an ID3 tag, before its audio begins")
    if is_mpeg_audio_frame(audio := padding.lstrip(b"\0")):
        start += len(padding) - len(audio)
    return FileView(raw, start)


def _require_acceptable(audio: DecodedAudio, max_seconds: float) -> None:
    if audio.channels > MAX_CHANNELS and not can_mix_down(audio.layout):
        layout = "an unknown layout" if audio.layout is None else "the layout " + " ".join(audio.layout)
        raise InvalidArgument(
            "data",
            f"must have 1 or 2 channels, or the layout of usual surround sound, not {audio.channels} channels with "
            f"{layout}; mix it down first, for example with `ffmpeg -i INPUT -ac 2 OUTPUT.flac`",
        )
    if not MIN_SAMPLE_RATE_HZ <= audio.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise InvalidArgument(
            "data",
            f"must have a sample rate of {MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz, not {audio.sample_rate_hz} "
            "Hz; convert it first, for example with `ffmpeg -i INPUT -ar 48000 OUTPUT.flac`",
        )
    seconds = 0.0 if audio.frames is None else audio.frames / audio.sample_rate_hz
    if seconds > max_seconds:
        raise _invalid_length(max_seconds, f"not {seconds:.3f} s")


def _invalid_sample(block: Samples, first_frame: int) -> InvalidArgument:
    frame, channel = np.argwhere(~(np.abs(block) <= MAX_AMPLITUDE))[0].tolist()
    value = block[frame, channel]
    if np.isfinite(value):
        problem = (
            f", more than {MAX_AMPLITUDE:g} times full scale; the file probably contains integers as floats, "
            "which have to be scaled to ±1 (those of 16 bits divided by 32768)"
        )
    else:
        problem = "; every sample must be finite"
    return InvalidArgument("data", f"frame {first_frame + frame}, channel {channel} is {value:g}{problem}")


def _invalid_length(max_seconds: float, problem: str) -> InvalidArgument:
    return InvalidArgument("data", f"must be {MIN_DURATION_SECONDS:g} to {max_seconds:g} s of audio, {problem}")


def _invalid_file(problem: str) -> InvalidArgument:
    return InvalidArgument("data", f"{SOURCE_FILE_REQUIREMENT}; {problem}")
