"""Samples on standard output while they arrive: as a WAV file whose end is not known yet, or without a header."""

from __future__ import annotations

import struct
import sys
import uuid
from collections.abc import Callable

from gateway.cli.playback.audio_sink import PcmFormat
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.standard_streams import write_audio

EXTENSIBLE = 0xFFFE
"""WAVE_FORMAT_EXTENSIBLE, which says what the channels are; with the older form, ffmpeg warns that it guesses."""
FLOAT_GUID = uuid.UUID("00000003-0000-0010-8000-00aa00389b71")
"""KSDATAFORMAT_SUBTYPE_IEEE_FLOAT."""
CHANNEL_MASKS = {1: 0x4, 2: 0x3}
"""Front center; front left and right."""
EXTENSION_BYTES = 22
UNKNOWN_BYTES = 0x7FFFF000
"""The size of samples whose end is not known, as SoX writes it, and reads without a warning. ffmpeg and aplay read to
the end of the stream."""
MAX_BYTES = 0xFFFFFFFF


def wav_header(pcm_format: PcmFormat) -> bytes:
    """Returns what comes before the samples in a WAV file, with the right sizes if they are known."""
    rate, channels, frames = pcm_format
    size = min(frames * pcm_format.frame_bytes, MAX_BYTES) if frames else UNKNOWN_BYTES
    # https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html
    fmt = struct.pack(
        "<HHIIHHHHI16sH",
        EXTENSIBLE,
        channels,
        rate,
        rate * pcm_format.frame_bytes,
        pcm_format.frame_bytes,
        32,
        EXTENSION_BYTES,
        32,
        CHANNEL_MASKS[channels],
        FLOAT_GUID.bytes_le,
        0,  # SoX looks for the size of another extension, and warns if there is none.
    )
    fact = struct.pack("<I", size // pcm_format.frame_bytes)
    chunks = b"".join(name + struct.pack("<I", len(data)) + data for name, data in ((b"fmt ", fmt), (b"fact", fact)))
    content = b"WAVE" + chunks + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", min(len(content) + size, MAX_BYTES)) + content


class StandardOutputStream:
    """Writes samples to standard output. Raises OutputLost when it can't be written, as when its reader is gone.

    Raises CommandError if standard output is a terminal.
    """

    def __init__(self, print_notice: Callable[[str], None], *, is_raw: bool = False) -> None:
        if sys.stdout.isatty():
            raise CommandError(
                "--stdout: standard output is a terminal; send it to a program or a file: | ffplay -", BAD_INPUT
            )
        self._print_notice = print_notice
        self._is_raw = is_raw

    async def open(self, pcm_format: PcmFormat) -> None:
        """Writes the header, or says what it would contain."""
        if self._is_raw:
            rate, channels, _ = pcm_format
            layout = "mono" if channels == 1 else "stereo"
            self._print_notice(
                f"raw: float32 little-endian, {rate} Hz, {channels} channels; e.g. "
                f"ffplay -f f32le -ar {rate} -ch_layout {layout} -"
            )
        else:
            await self.write(wav_header(pcm_format))

    async def write(self, pcm: bytes) -> None:
        """Writes all bytes as the reader takes them. Can be cancelled at any time, also if the reader takes none."""
        await write_audio(pcm)

    async def finish(self) -> None:
        """Has nothing to wait for: what was written is the reader's."""

    def stop(self) -> None:
        """Has nothing to drop."""
