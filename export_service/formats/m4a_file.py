"""MPEG-4 audio files with AAC, written and read by FFmpeg's libraries through PyAV (the extra "m4a").

Both classes have those methods of soundfile.SoundFile that the writer and the readers of finished files use.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np

from dgx_music.errors import FailedPrecondition
from export_service.dsp.arrays import Samples
from export_service.formats.native_file import NativeFileObject
from service_runtime.audio.bit_rates import aac_bit_rates
from service_runtime.audio.output_options import FileFormat
from service_runtime.optional_deps import install_extra_command

DEFAULT_KBPS_PER_CHANNEL = 128
LAYOUTS = {1: "mono", 2: "stereo"}
FILE_TYPE_BOX, FILE_TYPE_OFFSET = b"ftyp", 4
"""How an MPEG-4 file starts (ISO/IEC 14496-12): the size of this box, then its name."""


class DamagedFileError(Exception):
    """A finished file is not as it was written. The message is a clause about the file, or a library's text."""


def require_encoder(file_format: FileFormat) -> None:
    """Raises FailedPrecondition if the format's encoder is not installed."""
    if file_format is FileFormat.M4A_AAC:
        import_av()


def import_av() -> Any:
    """Returns PyAV. Raises FailedPrecondition if it is not installed."""
    try:
        import av
    except ImportError:
        raise FailedPrecondition(
            f"M4A_AAC requires the m4a extra on the export server; install it with: {install_extra_command('m4a')}",
            reason="M4A_NOT_INSTALLED",
        ) from None
    return av


class M4aWriter:
    """Encodes AAC-LC. The file has no time of its creation, and its edit list hides the encoder's delay and padding, so
    that a player gets as many frames as were written.
    """

    def __init__(
        self, file: BinaryIO | NativeFileObject, sample_rate_hz: int, channels: int, bit_rate_kbps: int
    ) -> None:
        """`bit_rate_kbps` may be 0 for the default. `file` is not closed."""
        self._av = import_av()
        self._rate, self._layout, self._frames = sample_rate_hz, LAYOUTS[channels], 0
        default = min(DEFAULT_KBPS_PER_CHANNEL * channels, aac_bit_rates(sample_rate_hz, channels)[-1])
        # In the unit of the movie's time scale, the edit list says how much to play: by default only in milliseconds.
        options = {"movie_timescale": str(sample_rate_hz), "fflags": "+bitexact"}
        self._container = self._av.open(file, "w", format="ipod", options=options)
        self._stream = self._container.add_stream(
            "aac", rate=sample_rate_hz, layout=self._layout, bit_rate=(bit_rate_kbps or default) * 1000
        )
        self._stream.codec_context.flags |= self._av.codec.context.Flags.bitexact

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, samples: Samples) -> None:
        """Encodes samples: [frames, channels]."""
        if not len(samples):
            return
        frame = self._av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=self._layout)
        frame.sample_rate, frame.pts = self._rate, self._frames
        self._frames += len(samples)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Completes the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


class M4aReader:
    """Decodes forwards only. Raises DamagedFileError from any method if the file can't be read."""

    format, subtype = "M4A", "AAC"

    def __init__(self, file: Path | int) -> None:
        """Opens a path, or a descriptor, which stays open. Raises FailedPrecondition if PyAV is not installed."""
        self._av = import_av()
        self._file = open(file, "rb", closefd=isinstance(file, Path))  # noqa: SIM115  # `close` closes it.
        try:
            with self._translate_errors():
                self._container = self._av.open(self._file, metadata_errors="replace")
                if not self._container.streams.audio:
                    raise DamagedFileError("it has no audio track")
        except BaseException:
            self._file.close()
            raise
        stream = self._container.streams.audio[0]
        if stream.codec_context is None or stream.duration is None or stream.time_base is None:
            self.close()
            raise DamagedFileError("its header does not say what it contains")
        self.samplerate: int = stream.rate
        self.channels: int = stream.channels
        self.frames = round(stream.duration * stream.time_base * stream.rate)
        self._blocks = self._decode(stream)
        self._rest = np.empty((0, self.channels), dtype=np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(
        self, frames: int = 0, dtype: str = "float32", always_2d: bool = True, out: Samples | None = None
    ) -> Samples:
        """Returns the next frames, or as many as `out` takes: [frames, channels] of float32; fewer at the end."""
        assert dtype == "float32"
        assert always_2d
        wanted = frames if out is None else len(out)
        parts, missing = [self._rest], wanted - len(self._rest)
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            parts.append(block)
            missing -= len(block)
        samples = np.concatenate(parts)
        samples, self._rest = samples[:wanted], samples[wanted:]
        if out is None:
            return samples
        out[: len(samples)] = samples
        return out[: len(samples)]

    def close(self) -> None:
        """Closes the decoder, and the file if it was opened by its path."""
        self._container.close()
        self._file.close()

    def _decode(self, stream: Any) -> Iterator[Samples]:
        # FFmpeg leaves out the encoder's delay, but PyAV does not cut off the padding at the end.
        left = self.frames
        with self._translate_errors():
            for frame in self._container.decode(stream):
                if frame.layout.nb_channels != self.channels or frame.format.name != "fltp":
                    raise DamagedFileError("its audio changes within the file")
                yield frame.to_ndarray().T[:left]
                left = max(left - frame.samples, 0)

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        try:
            yield
        except self._av.error.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise DamagedFileError(error.strerror or str(error)) from error


def is_mpeg4(file: Path | int) -> bool:
    """Returns whether the file at a path, or the one open as a descriptor, starts like MPEG-4. Raises OSError."""
    with open(file, "rb", closefd=isinstance(file, Path)) as opened:
        head = os.pread(opened.fileno(), FILE_TYPE_OFFSET + len(FILE_TYPE_BOX), 0)
    return head[FILE_TYPE_OFFSET:] == FILE_TYPE_BOX
