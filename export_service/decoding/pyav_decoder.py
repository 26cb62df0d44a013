"""Decodes with PyAV (FFmpeg) what libsndfile does not read, if the extra "m4a" is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from typing import Any

import numpy as np

from export_service.decoding.decoded_audio import EXTRACT_HINT, NOT_DECODABLE, DecodedAudio, DecodeError
from export_service.decoding.file_view import FileView
from export_service.decoding.signatures import FileKind
from export_service.decoding.surround import ChannelLayout
from export_service.dsp.arrays import Samples
from service_runtime.audio.block_size import BLOCK_FRAMES

NO_PROTOCOL = {"protocol_whitelist": "none"}
"""So that nothing in a file can make FFmpeg open another file or an address."""
REPORT_DAMAGE = {"err_detect": "crccheck+explode"}
"""Decoders report a wrong checksum as an error, instead of returning damaged samples."""
TOLERANCES = {"mov": 4096, "wv": 0, "tta": 0, "ape": 0, "flac": 0}
"""Demuxer whose files say how long their audio is → by how many frames that may be off: two packets of HE-AAC."""
NO_LAYOUT = "NONE"
CODEC_NAMES = {"vorbis": "Vorbis", "opus": "Opus", "speex": "Speex", "wavpack": "WavPack"}
"""FFmpeg's name → the usual one, unless that is the same in upper case."""


def can_use_pyav() -> bool:
    """Returns whether PyAV is installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def open_with_pyav(file: FileView, kind: FileKind) -> Iterator[DecodedAudio]:
    """Opens a file with its kind's demuxer, and no other. Raises DecodeError."""
    import av

    file.seek(0)
    try:
        container = av.open(file, format=kind.demuxer, options=NO_PROTOCOL, metadata_errors="replace")
    except av.FFmpegError as error:
        raise DecodeError(NOT_DECODABLE) from error
    with container:
        if not container.streams.audio:
            raise DecodeError("it contains no audio track")
        if len(container.streams.audio) > 1:
            raise DecodeError(f"it contains {len(container.streams.audio)} audio tracks; {EXTRACT_HINT}")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise DecodeError(NOT_DECODABLE)
        stream.codec_context.options = REPORT_DAMAGE
        frames = _decode(container, stream)
        try:
            first = next(frames)
        except (StopIteration, DecodeError) as error:
            raise DecodeError(NOT_DECODABLE) from error
        length = _exact_length(stream, first.sample_rate, kind)
        tolerance = TOLERANCES.get(kind.demuxer, 0)
        yield DecodedAudio(
            _describe(stream, kind),
            first.sample_rate,
            len(first.layout.channels),
            _layout(first),
            length,
            tolerance,
            _read_blocks(first, frames, length, tolerance),
        )


def _decode(container: Any, stream: Any) -> Iterator[Any]:
    import av

    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        raise DecodeError("truncated or damaged") from error


def _read_blocks(first: Any, frames: Iterator[Any], length: int | None, tolerance_frames: int) -> Iterator[Samples]:
    """Joins FFmpeg's frames into blocks, without the padding that an encoder adds after `length` frames."""
    rest = sys.maxsize if length is None else length
    padding = 0
    pending: list[Samples] = []
    for samples in _to_samples(chain([first], frames)):
        pending.append(samples[:rest])
        rest -= len(pending[-1])
        padding += len(samples) - len(pending[-1])
        if padding > tolerance_frames:
            raise DecodeError("its header says that it ends there, but there is more")
        if sum(map(len, pending)) >= BLOCK_FRAMES:
            yield np.concatenate(pending)
            pending = []
    if pending:
        yield np.concatenate(pending)


def _to_samples(frames: Iterable[Any]) -> Iterator[Samples]:
    """Converts FFmpeg's frames to [frames, channels] of float32.

    FFmpeg interleaves the channels, because PyAV 18.1 reads beyond the planes of a frame that has 8 of them.
    """
    import av

    converter: Any = None
    before: tuple[int, str] | None = None
    for frame in frames:
        now = frame.sample_rate, frame.layout.name
        if before is not None and now != before:
            raise DecodeError(f"its audio changes there to {now[0]} Hz, {now[1]}; convert it first")
        before = now
        converter = converter or av.AudioResampler("flt", frame.layout, frame.sample_rate)
        for converted in converter.resample(frame):
            yield converted.to_ndarray().reshape(-1, len(frame.layout.channels))


def _exact_length(stream: Any, sample_rate_hz: int, kind: FileKind) -> int | None:
    if kind.demuxer not in TOLERANCES or not stream.duration:
        return None
    length = stream.duration * stream.time_base * sample_rate_hz
    return int(length) if isinstance(length, Fraction) and length.denominator == 1 else None


def _describe(stream: Any, kind: FileKind) -> str:
    if not kind.encodings:
        return kind.name.partition(" ")[2].replace(" file", "")
    codec = stream.codec_context.codec.canonical_name
    return f"{CODEC_NAMES.get(codec) or codec.upper().replace('_', '-')} ({kind.encodings})"


def _layout(frame: Any) -> ChannelLayout | None:
    names = tuple(channel.name for channel in frame.layout.channels)
    return None if NO_LAYOUT in names else names
