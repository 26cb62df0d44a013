"""Writes audio files: dithered samples and tags, in a file that is reproducible byte for byte."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export_service.dsp.arrays import Samples
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.formats.codecs import CODECS, CodecSpec, libsndfile_options
from export_service.formats.m4a_file import M4aWriter
from export_service.formats.native_file import NativeFileObject
from export_service.formats.provenance import Signer
from export_service.retagging.tag_replacement import write_with_tags
from export_service.tagging import aiff, riff
from export_service.tagging.containers import DISCLOSURES, SampleLayout, encode_tags, overwrite_tags
from export_service.tagging.disclosure import AiDisclosure
from export_service.tagging.tags import FileTags
from service_runtime.audio.output_options import FileFormat, check_aiff_size

MAX_WAV_BYTES = 2**32 - 2**24
"""RIFF sizes have 32 bits; this leaves 16 MiB for headers, tags with a cover, and a signature."""
WRITE_BUFFER_BYTES = 1 << 18
"""libsndfile writes 8 KiB at a time; this much is written to the disk at once."""
QUANTIZED_FRAMES = 8192
"""Quantizing this many frames at a time stays within the cache."""
FLOAT_BYTES = 4
PLACEHOLDER = "~"
RESERVING_CONTAINERS = ("WAV", "FLAC", "OGG", "MP3")
"""Containers in which libsndfile can reserve space for the tags. In the others they follow the samples."""
PEAK_CHUNKS = {"WAV": riff.iter_chunks, "AIFF": aiff.iter_chunks}
"""How to find the PEAK chunk, which libsndfile writes into a file of floats in these containers."""
PEAK_TIME_OFFSET = 4
"""Of the time of writing, after the chunk's version."""


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
    bit_rate_kbps: int = 0
    """Of a lossy format; 0 for its default."""
    quality: float | None = None
    """Of a lossy format without a bit rate, 0 to 10; None for its default."""

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
        """Where its tags disclose that it is AI-generated."""
        return () if self.tags is None else DISCLOSURES[self.codec.container]

    def sign(self, part: Path) -> tuple[AiDisclosure, ...]:
        """Signs the written file if there is a signer for it; it must not change afterwards. Returns where the
        signature is. Raises OSError, and FailedPrecondition if signing fails.
        """
        if self.signer is None or self.tags is None:
            return ()
        return (self.signer.sign(part, self.container, self.tags),)

    def write(
        self, part: Path, blocks: Iterable[Samples], gain_db: float, measurement: LoudnessMeasurement | None = None
    ) -> None:
        """Writes `blocks` ([frames, channels] each) with the gain applied to the new file `part`. `measurement` is that
        of the result; only the tags of WAV files contain it.

        The same arguments and the same libraries give the same bytes, for any block sizes except in Vorbis. Raises
        OSError if the disk fails; the caller then has to remove the part. Raises InvalidArgument if the samples do not
        fit into AIFF, and FailedPrecondition if the encoder is not installed.
        """
        import soundfile

        check_aiff_size("output.format", self.format, self.frames, self.channels)
        quantize = build_quantizer(self.codec.bits, gain_db, self.seed)
        container, tag_bytes = self.codec.container, b""
        if self.tags is not None:
            tag_bytes = encode_tags(container, self.tags, self._layout, measurement)
        with part.open("x+b", buffering=WRITE_BUFFER_BYTES) as raw:
            destination = NativeFileObject(raw)
            try:
                with self._open_encoder(destination) as file:
                    if tag_bytes and container in RESERVING_CONTAINERS:
                        # libsndfile can write only a few tags, but it can reserve the space for all of them.
                        file.title = PLACEHOLDER * len(tag_bytes)
                    for block in blocks:
                        file.write(quantize(block))
            except (soundfile.SoundFileError, AssertionError):
                if destination.os_error is None:
                    raise
            if destination.os_error is not None:
                raise destination.os_error
        if self.container in PEAK_CHUNKS and not self.codec.bits:
            _clear_peak_time(part, self.container)
        overwrite_tags(part, container, self.tags, tag_bytes, self.seed % 2**32)
        if container == "OGG" and self.tags is not None and self.tags.cover is not None:
            self._add_cover_to_ogg(part, self.tags)

    def _add_cover_to_ogg(self, part: Path, tags: FileTags) -> None:
        # libsndfile can't reserve the space: Opus files with that many comments are damaged.
        tagged = part.with_suffix(".tagged.part")
        try:
            with part.open("rb") as source:
                write_with_tags(source, tagged, "OGG", tags, self._layout)
            os.replace(tagged, part)
        finally:
            tagged.unlink(missing_ok=True)

    def _open_encoder(self, destination: NativeFileObject) -> Any:
        """Opens a soundfile.SoundFile, or what has its method `write`."""
        import soundfile

        if self.codec.container == "M4A":
            return M4aWriter(destination, self.sample_rate_hz, self.channels, self.bit_rate_kbps)
        return soundfile.SoundFile(
            destination,
            "w",
            samplerate=self.sample_rate_hz,
            channels=self.channels,
            subtype=self.codec.subtype,
            format=self.container,
            **libsndfile_options(self.format, self.sample_rate_hz, self.channels, self.bit_rate_kbps, self.quality),
        )


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
        integers = np.empty(block.shape, dtype=np.int32)
        for begin in range(0, len(block), QUANTIZED_FRAMES):
            part = block[begin : begin + QUANTIZED_FRAMES]
            steps = np.multiply(part, gain * full_scale, dtype=np.float64)
            if random is not None:
                uniform = random.random_raw(part.size).view(np.uint32).reshape(*part.shape, 2) * 2.0**-32
                steps += uniform[..., 0] - uniform[..., 1]
            np.rint(steps, out=steps)
            np.clip(steps, -full_scale, full_scale - 1, out=steps)
            integers[begin : begin + len(part)] = steps
        np.left_shift(integers, 32 - bits, out=integers)
        return integers

    return to_integers


def _clear_peak_time(path: Path, container: str) -> None:
    """Clears the time of writing, so that the file is reproducible."""
    with path.open("r+b") as file:
        start = next(start for name, start, _ in PEAK_CHUNKS[container](file) if name == b"PEAK")
        file.seek(start + PEAK_TIME_OFFSET)
        file.write(bytes(4))
