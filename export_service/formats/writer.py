"""Writes audio files: dithered samples and tags, in a file that is reproducible byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export_service.dsp.arrays import Samples
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.formats.codecs import CODECS, CodecSpec
from export_service.formats.native_file import NativeFileObject
from export_service.formats.provenance import Signer
from export_service.tagging import riff
from export_service.tagging.containers import DISCLOSURES, SampleLayout, encode_tags, overwrite_tags
from export_service.tagging.disclosure import AiDisclosure
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import FileFormat

MAX_WAV_BYTES = 2**32 - 2**20
"""RIFF sizes have 32 bits; this leaves a mebibyte for headers and tags."""
WRITE_BUFFER_BYTES = 1 << 20
"""libsndfile writes 8 KiB at a time; this much is written to the disk at once."""
FLOAT_BYTES = 4
PLACEHOLDER = "~"


@dataclass(frozen=True)
class AudioFile:
    """A file to be written."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    frames: int
    tags: FileTags | None
    """None for a clip, which is not our work and gets no tags."""
    seed: int
    """Seeds the dither and the serial number of an Ogg stream: 0 or more."""
    signer: Signer | None = None

    @property
    def codec(self) -> CodecSpec:
        """How its format is encoded."""
        return CODECS[self.format]

    @property
    def container(self) -> str:
        """soundfile's name of the container: RF64 if the samples do not fit into a plain WAV file."""
        size = self.frames * self.channels * (self.codec.bits // 8 or FLOAT_BYTES)
        is_too_large = self.codec.container == "WAV" and size > MAX_WAV_BYTES
        return "RF64" if is_too_large else self.codec.container

    @property
    def _layout(self) -> SampleLayout:
        return SampleLayout(self.sample_rate_hz, self.channels, self.codec.bits or FLOAT_BYTES * 8, self.frames)

    @property
    def disclosures(self) -> tuple[AiDisclosure, ...]:
        """Where the file discloses that it is AI-generated."""
        if self.tags is None:
            return ()
        is_signed = self.signer is not None and self.signer.can_sign(self.container)
        return (*DISCLOSURES[self.codec.container], *([AiDisclosure.C2PA] if is_signed else []))

    def sign(self, part: Path) -> None:
        """Signs the written file if there is a signer for it; the file must not change afterwards. Raises OSError, and
        FailedPrecondition if signing fails.
        """
        if self.signer is not None and self.tags is not None and self.signer.can_sign(self.container):
            self.signer.sign(part, self.container, self.tags)

    def write(
        self, part: Path, blocks: Iterable[Samples], gain_db: float, measurement: LoudnessMeasurement | None = None
    ) -> None:
        """Writes `blocks` ([frames, channels] each) with the gain applied to the new file `part`. `measurement` is that
        of the result; only the tags of WAV files contain it.

        The same arguments and the same libsndfile give the same bytes, for any block sizes except in Vorbis. Raises
        OSError if the disk fails; the caller then has to remove the part.
        """
        import soundfile

        quantize = build_quantizer(self.codec.bits, gain_db, self.seed)
        container, tag_bytes = self.codec.container, b""
        if self.tags is not None:
            tag_bytes = encode_tags(container, self.tags, self._layout, measurement)
        with part.open("x+b", buffering=WRITE_BUFFER_BYTES) as raw:
            destination = NativeFileObject(raw)
            try:
                with soundfile.SoundFile(
                    destination,
                    "w",
                    samplerate=self.sample_rate_hz,
                    channels=self.channels,
                    subtype=self.codec.subtype,
                    format=self.container,
                    **self.codec.encoder_options,
                ) as file:
                    if tag_bytes:
                        # libsndfile can write only a few tags, but it can reserve the space for all of them.
                        file.title = PLACEHOLDER * len(tag_bytes)
                    for block in blocks:
                        file.write(quantize(block))
            except (soundfile.SoundFileError, AssertionError):
                if destination.os_error is None:
                    raise
            if destination.os_error is not None:
                raise destination.os_error
        if self.codec.container == "WAV" and not self.codec.bits:
            _clear_peak_time(part)
        overwrite_tags(part, container, self.tags, tag_bytes, self.seed % 2**32)


def build_quantizer(bits: int, gain_db: float, dither_seed: int) -> Callable[[Samples], npt.NDArray[Any]]:
    """Returns a function that converts successive blocks into what soundfile writes unchanged: float32 if `bits` is 0.

    Integers are rounded to the nearest step. For 16 bits, triangular (TPDF) dither of ±1 step is added first, from a
    generator whose raw stream is the same in all versions of NumPy.
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
        integers: npt.NDArray[np.int32] = steps.astype(np.int32)
        np.left_shift(integers, 32 - bits, out=integers)
        return integers

    return to_integers


def _clear_peak_time(path: Path) -> None:
    """Clears the time of writing, which libsndfile stores in the PEAK chunk of a float file; RF64 has no such chunk."""
    with path.open("r+b") as file:
        for name, start, _ in riff.iter_chunks(file):
            if name == b"PEAK":
                file.seek(start + 4)  # After its version.
                file.write(bytes(4))
                return
