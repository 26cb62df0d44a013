"""Decodes with libsndfile."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from export_service.decoding.container_lengths import XingHeader, find_xing_header, read_flac_length, repair_lengths
from export_service.decoding.decoded_audio import (
    EXTRACT_HINT,
    NOT_DECODABLE,
    DecodedAudio,
    DecodeError,
    UnsupportedEncodingError,
)
from export_service.decoding.file_view import FileView
from export_service.decoding.ogg_pages import AUDIO_CODECS, Stream, mark_end, read_streams, unwrap_flac
from export_service.decoding.signatures import Container
from export_service.decoding.surround import FLAC_LAYOUTS, VORBIS_LAYOUTS, ChannelLayout, channel_mask_layout
from export_service.dsp.arrays import Samples
from export_service.formats.native_file import NativeFileObject
from export_service.formats.reader import open_sndfile_sequential, run_sndfile_command
from export_service.tagging.vorbis_comment import FLAC_MAGIC, VORBIS_COMMENT, iter_flac_blocks
from service_runtime.audio.block_size import BLOCK_FRAMES

CONTAINER_NAMES = {"WAVEX": "WAV"}
"""soundfile's name → the usual one, where they differ."""
SUBTYPE_NAMES = {
    "PCM_S8": "8-bit PCM",
    "PCM_U8": "8-bit PCM",
    "PCM_16": "16-bit PCM",
    "PCM_24": "24-bit PCM",
    "PCM_32": "32-bit PCM",
    "FLOAT": "32-bit float",
    "DOUBLE": "64-bit float",
    "ULAW": "µ-law",
    "ALAW": "A-law",
    "IMA_ADPCM": "IMA ADPCM",
    "MS_ADPCM": "Microsoft ADPCM",
    "GSM610": "GSM 6.10",
    "MPEG_LAYER_I": "MP1",
    "MPEG_LAYER_II": "MP2",
    "MPEG_LAYER_III": "MP3",
    "VORBIS": "Vorbis",
    "OPUS": "Opus",
}
GET_CHANNEL_MAP = 0x1100
"""A command of libsndfile (sndfile.h)."""
CHANNEL_MAP = {
    2: "FL",
    3: "FR",
    4: "FC",
    5: "FL",
    6: "FR",
    7: "FC",
    8: "BC",
    9: "BL",
    10: "BR",
    11: "LFE",
    12: "FLC",
    13: "FRC",
    14: "SL",
    15: "SR",
}
"""SF_CHANNEL_MAP_… → the loudspeaker."""
FLAC_MASK = re.compile(rb"WAVEFORMATEXTENSIBLE_CHANNEL_MASK=0x([0-9a-f]{1,8})(?![0-9a-f])", re.IGNORECASE)
OPUS_FAMILY_OFFSET, OPUS_SURROUND = 18, b"\1"
"""The channel mapping family of surround sound (RFC 7845, section 5.1.1). The others do not assign loudspeakers."""
MP3_LENGTH_TOLERANCE_FRAMES = 2 * 1152
"""Without the encoder's delay and padding, fewer frames are decoded than the header says."""


@contextmanager
def open_with_sndfile(file: FileView, container: Container, folder: Path) -> Iterator[DecodedAudio]:
    """Opens a file of one of the containers. Temporary files are created in `folder`. Raises DecodeError, and
    UnsupportedEncodingError if its encoding is not one of libsndfile's.
    """
    with ExitStack() as stack:
        stream = _single_stream(file) if container is Container.OGG else None
        if stream is not None and stream.codec == "FLAC":
            unwrapped = cast(BinaryIO, stack.enter_context(tempfile.TemporaryFile(dir=folder)))
            unwrap_flac(file, unwrapped)
            file, container = FileView(unwrapped), Container.FLAC
        elif stream is not None:
            file = file.part(patches=mark_end(file, stream))
        flac_mask, flac_length = _read_flac_mask(file), read_flac_length(file)
        file = repair_lengths(file, container)
        xing = find_xing_header(file)
        native = NativeFileObject(cast(BinaryIO, file))
        sound = stack.enter_context(_open(native))
        if sound.subtype == "MPEG_LAYER_III" and sound.format != "MP3":
            raise UnsupportedEncodingError("it contains MP3, of which libsndfile could lose the end")
        yield DecodedAudio(
            _describe(sound, stream),
            sound.samplerate,
            sound.channels,
            _layout(sound, flac_mask, stream),
            _exact_frames(sound, flac_length, xing),
            MP3_LENGTH_TOLERANCE_FRAMES if sound.format == "MP3" else 0,
            _read_blocks(sound, native),
        )


def _single_stream(file: FileView) -> Stream:
    """Returns the stream of a file that libsndfile can read."""
    streams = read_streams(file)
    audio = [stream for stream in streams if stream.codec in AUDIO_CODECS]
    names = " and ".join(stream.codec for stream in streams)
    if len(audio) > 1:
        raise DecodeError(f"it contains {len(audio)} audio streams at once ({names}); {EXTRACT_HINT}")
    if len(streams) > 1 or (audio[:1] and audio[0].codec in ("Speex", "CELT", "PCM")):
        raise UnsupportedEncodingError(f"it contains {names}")
    if not audio:
        raise DecodeError(f"it contains no audio but {names}")
    return audio[0]


def _open(native: NativeFileObject) -> Any:
    import soundfile

    native.seek(0)
    try:
        return open_sndfile_sequential(native, as_played=True)
    except soundfile.LibsndfileError as error:
        if native.os_error is not None:
            raise native.os_error from error
        raise UnsupportedEncodingError(NOT_DECODABLE) from error


def _read_blocks(sound: Any, native: NativeFileObject) -> Iterator[Samples]:
    import soundfile

    while True:
        try:
            block: Samples = sound.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            if native.os_error is not None:
                raise native.os_error from error
            raise DecodeError("truncated or damaged") from error
        if native.os_error is not None:
            raise native.os_error
        if not len(block):
            return
        yield block


def _describe(sound: Any, stream: Stream | None) -> str:
    subtype: str = SUBTYPE_NAMES.get(sound.subtype, sound.subtype_info)
    if stream is not None:
        return "Opus" if stream.codec == "Opus" else f"Ogg {stream.codec}"
    if sound.format == "MP3":
        return subtype
    if sound.format == "FLAC":
        subtype = subtype.removesuffix(" PCM")
    return f"{CONTAINER_NAMES.get(sound.format, sound.format)}, {subtype}"


def _exact_frames(sound: Any, flac_length: int | None, xing: XingHeader | None) -> int | None:
    if sound.format == "OGG":
        return None  # Its pages have already been checked.
    if sound.format == "FLAC":
        return flac_length
    if sound.format == "MP3":
        return int(sound.frames) if xing and xing.frames else None
    return int(sound.frames)


def _layout(sound: Any, flac_mask: int | None, stream: Stream | None) -> ChannelLayout | None:
    if stream is not None and stream.codec != "FLAC":
        is_ordered = stream.codec == "Vorbis" or stream.first_packet.startswith(OPUS_SURROUND, OPUS_FAMILY_OFFSET)
        return VORBIS_LAYOUTS.get(sound.channels) if is_ordered else None
    if sound.format == "FLAC":
        return FLAC_LAYOUTS.get(sound.channels) if flac_mask is None else channel_mask_layout(flac_mask, sound.channels)
    return _read_channel_map(sound)


def _read_flac_mask(file: FileView) -> int | None:
    """Returns the channel mask in a FLAC file's comments, which overrides the usual order (RFC 9639, section 8.6.2)."""
    if file.read_at(0, len(FLAC_MAGIC)) != FLAC_MAGIC:
        return None
    with suppress(struct.error, ValueError):  # The file is truncated or damaged, which decoding reports.
        for kind, start, size, _ in iter_flac_blocks(cast(BinaryIO, file)):
            if kind == VORBIS_COMMENT and (found := FLAC_MASK.search(file.read_at(start, size))):
                return int(found[1], 16)
    return None


def _read_channel_map(sound: Any) -> ChannelLayout | None:
    import soundfile

    channel_map = soundfile._ffi.new("int[]", sound.channels)
    known = run_sndfile_command(sound, GET_CHANNEL_MAP, channel_map, "int", sound.channels)
    layout = tuple(CHANNEL_MAP[place] for place in channel_map if place in CHANNEL_MAP)
    return layout if known and len(layout) == sound.channels else None
