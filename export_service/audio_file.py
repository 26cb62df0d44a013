"""Audio files: samples quantised with intent, tags, and a file that does not change from one day to the next."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from export_service.formats import FORMS, Form
from export_service.loudness import Samples
from export_service.ogg import set_serial
from service_runtime.output import FileFormat

LARGEST_WAV_BYTES = 2**32 - 2**20
"""RIFF sizes are 32 bits; a megabyte is left for headers and tags."""
SINK_BYTES = 1 << 20
"""libsndfile writes 8 KiB at a time; the disk gets this much."""
FLOAT_BYTES = 4


@dataclass(frozen=True)
class AudioFile:
    """A file that is to be written."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    frames: int
    tags: Mapping[str, str]
    seed: int
    """Of what is random in it, the dither and an Ogg stream's serial number: 0 or more."""

    @property
    def form(self) -> Form:
        """How its format is written."""
        return FORMS[self.format]

    @property
    def container(self) -> str:
        """soundfile's name of it: RF64 for what plain WAV can't hold."""
        size = self.frames * self.channels * (self.form.bits // 8 or FLOAT_BYTES)
        too_large = self.form.container == "WAV" and size > LARGEST_WAV_BYTES
        return "RF64" if too_large else self.form.container

    def write(self, part: Path, blocks: Iterable[Samples], gain_db: float) -> None:
        """Writes `blocks` ([frames, channels] each) times the gain to the new file `part`.

        Byte for byte the same for the same arguments and the same libsndfile, however the blocks are cut but in Vorbis.
        Raises OSError where the disk refuses; the part is then left for the caller to remove.
        """
        import soundfile

        quantise = quantiser(self.form.bits, gain_db, self.seed)
        with part.open("x+b", buffering=SINK_BYTES) as raw:
            sink = _Sink(raw)
            try:
                with soundfile.SoundFile(
                    sink,
                    "w",
                    samplerate=self.sample_rate_hz,
                    channels=self.channels,
                    subtype=self.form.subtype,
                    format=self.container,
                    **self.form.quality,
                ) as file:
                    for name, value in self.tags.items():
                        setattr(file, name, value)
                    for block in blocks:
                        file.write(quantise(block))
            except (soundfile.SoundFileError, AssertionError):
                if sink.refusal is None:
                    raise
            if sink.refusal is not None:
                raise sink.refusal
        if self.form.container == "WAV" and not self.form.bits:
            _clear_peak_time(part)
        if self.form.container == "OGG":
            set_serial(part, self.seed % 2**32)


def quantiser(bits: int, gain_db: float, dither_seed: int) -> Callable[[Samples], npt.NDArray[Any]]:
    """A function that turns blocks, in order, into what soundfile writes unchanged: float32 for 0 bits.

    Integers are rounded to the nearest, 16 bits after adding triangular (TPDF) dither of ±1 step from a generator whose
    raw stream NumPy keeps the same in all versions.
    """
    gain = 10.0 ** (gain_db / 20.0)
    if not bits:
        return lambda block: (block * np.float64(gain)).astype(np.float32)
    full_scale = 2.0 ** (bits - 1)
    random = np.random.PCG64(dither_seed) if bits == 16 else None

    def to_integers(block: Samples) -> npt.NDArray[np.int32]:
        steps = np.multiply(block, gain * full_scale, dtype=np.float64)
        if random is not None:
            uniform = random.random_raw(block.size).view(np.uint32).reshape(*block.shape, 2) * 2.0**-32
            steps += uniform[..., 0] - uniform[..., 1]
        np.rint(steps, out=steps)
        np.clip(steps, -full_scale, full_scale - 1, out=steps)
        integers: npt.NDArray[np.int32] = steps.astype(np.int32) << (32 - bits)
        return integers

    return to_integers


def _clear_peak_time(path: Path) -> None:
    """libsndfile puts the time of writing into the PEAK chunk of a float file."""
    with path.open("r+b") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"PEAK":
                file.seek(4, os.SEEK_CUR)  # Its version.
                file.write(bytes(4))
                return
            file.seek(size + size % 2, os.SEEK_CUR)


class _Sink:
    """A file that libsndfile writes through, and that keeps the disk's own word for why it refused.

    libsndfile would say no more than "System error" for a full disk, and no exception passes through its callbacks.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.refusal: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._unless_refused(self._file.write, data)

    def readinto(self, buffer: memoryview) -> int:
        return self._unless_refused(self._file.readinto, buffer)  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._unless_refused(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._unless_refused(self._file.tell)

    def _unless_refused(self, operation: Callable[..., int], *arguments: object) -> int:
        try:
            return 0 if self.refusal else operation(*arguments)
        except OSError as error:
            self.refusal = error
            return 0
