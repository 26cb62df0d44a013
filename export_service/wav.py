"""WAV files: samples quantised with intent, tags, and a file that does not change from one day to the next."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from export_service.loudness import Samples


class Encoding(Enum):
    """How samples are written; the values are soundfile's subtypes."""

    PCM_24 = "PCM_24"
    PCM_16 = "PCM_16"
    FLOAT = "FLOAT"


BYTES_PER_SAMPLE = {Encoding.PCM_24: 3, Encoding.PCM_16: 2, Encoding.FLOAT: 4}
LARGEST_WAV_BYTES = 2**32 - 2**20
"""RIFF sizes are 32 bits; a megabyte is left for headers and tags."""


SINK_BYTES = 1 << 20
"""libsndfile writes 8 KiB at a time; the disk gets this much."""


def container(frames: int, channels: int, encoding: Encoding) -> str:
    """soundfile's name of the container: RF64 for what plain WAV can't hold."""
    return "RF64" if frames * channels * BYTES_PER_SAMPLE[encoding] > LARGEST_WAV_BYTES else "WAV"


def write_wav(
    part: Path,
    blocks: Iterable[Samples],
    *,
    frames: int,
    channels: int,
    sample_rate_hz: int,
    encoding: Encoding,
    gain_db: float,
    tags: Mapping[str, str],
    dither_seed: int,
) -> None:
    """Writes `blocks` ([frames, channels] each) times the gain to the new file `part`.

    Byte for byte the same for the same arguments, but for FLOAT: libsndfile puts the time into its PEAK chunk.
    Raises OSError where the disk refuses; the part is then left for the caller to remove.
    """
    import soundfile

    quantise = quantiser(encoding, gain_db, dither_seed)
    with part.open("xb", buffering=SINK_BYTES) as raw:
        sink = _Sink(raw)
        try:
            with soundfile.SoundFile(
                sink,
                "w",
                samplerate=sample_rate_hz,
                channels=channels,
                subtype=encoding.value,
                format=container(frames, channels, encoding),
            ) as file:
                for name, value in tags.items():
                    setattr(file, name, value)
                for block in blocks:
                    file.write(quantise(block))
        except (soundfile.SoundFileError, AssertionError):
            if sink.refusal is None:
                raise
        if sink.refusal is not None:
            raise sink.refusal


def quantiser(encoding: Encoding, gain_db: float, dither_seed: int) -> Callable[[Samples], npt.NDArray[Any]]:
    """A function that turns blocks, in order, into what soundfile writes unchanged.

    Integers are rounded to the nearest, PCM_16 after adding triangular (TPDF) dither of ±1 step from a generator whose
    raw stream NumPy keeps the same in all versions.
    """
    gain = 10.0 ** (gain_db / 20.0)
    if encoding is Encoding.FLOAT:
        return lambda block: (block * np.float64(gain)).astype(np.float32)
    bits = 8 * BYTES_PER_SAMPLE[encoding]
    full_scale = 2.0 ** (bits - 1)
    random = np.random.PCG64(dither_seed) if encoding is Encoding.PCM_16 else None

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


class _Sink:
    """A file that libsndfile writes through, and that keeps the disk's own word for why it refused.

    libsndfile would say no more than "System error" for a full disk, and no exception passes through its callbacks.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.refusal: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._unless_refused(self._file.write, data)

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
