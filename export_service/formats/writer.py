"""Audio files: samples quantised with intent, tags, and a file that does not change from one day to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from export_service.dsp.loudness import Samples
from export_service.dsp.measurement import Measured
from export_service.formats import id3, ogg, riff, vorbis_comment
from export_service.formats.codecs import FORMS, Form
from export_service.formats.native_file import Sink
from export_service.formats.provenance import Mark, Signer
from export_service.formats.tags import FileTags
from service_runtime.audio.output_options import FileFormat

LARGEST_WAV_BYTES = 2**32 - 2**20
"""RIFF sizes are 32 bits; a megabyte is left for headers and tags."""
SINK_BYTES = 1 << 20
"""libsndfile writes 8 KiB at a time; the disk gets this much."""
FLOAT_BYTES = 4
FILLER = "~"
MARKS = {
    "WAV": (Mark.INFO, Mark.BEXT),
    "FLAC": (Mark.VORBIS_COMMENT,),
    "OGG": (Mark.VORBIS_COMMENT,),
    "MP3": (Mark.ID3,),
}
"""What says in a container that an AI made it."""
CHANNEL_MODES = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class AudioFile:
    """A file that is to be written."""

    format: FileFormat
    sample_rate_hz: int
    channels: int
    frames: int
    tags: FileTags | None
    """None for what is not ours to mark: a clip."""
    seed: int
    """Of what is random in it, the dither and an Ogg stream's serial number: 0 or more."""
    signer: Signer | None = None

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

    @property
    def marks(self) -> tuple[Mark, ...]:
        """Where it says that an AI made it."""
        if self.tags is None:
            return ()
        signed = self.signer is not None and self.signer.can_sign(self.container)
        return (*MARKS[self.form.container], *([Mark.C2PA] if signed else []))

    def sign(self, part: Path) -> None:
        """Signs what was written, where it is to be; nothing may change it after that. Raises OSError."""
        if self.signer is not None and self.tags is not None and self.signer.can_sign(self.container):
            self.signer.sign(part, self.container, self.tags)

    def write(self, part: Path, blocks: Iterable[Samples], gain_db: float, measured: Measured | None = None) -> None:
        """Writes `blocks` ([frames, channels] each) times the gain to the new file `part`. `measured`: what it will
        measure, which only a WAV file's tags tell.

        Byte for byte the same for the same arguments and the same libsndfile, however the blocks are cut but in Vorbis.
        Raises OSError where the disk refuses; the part is then left for the caller to remove.
        """
        import soundfile

        quantise = quantiser(self.form.bits, gain_db, self.seed)
        content = self._tags(measured)
        with part.open("x+b", buffering=SINK_BYTES) as raw:
            sink = Sink(raw)
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
                    if content:
                        # libsndfile can write few tags, but make room for all.
                        file.title = FILLER * len(content)
                    for block in blocks:
                        file.write(quantise(block))
            except (soundfile.SoundFileError, AssertionError):
                if sink.refusal is None:
                    raise
            if sink.refusal is not None:
                raise sink.refusal
        if self.form.container == "WAV" and not self.form.bits:
            _clear_peak_time(part)
        self._put(part, content)

    def _tags(self, measured: Measured | None) -> bytes:
        """All tags, in the form that the container has them in; empty where there are none."""
        if self.tags is None:
            return b""
        match self.form.container:
            case "WAV":
                width = f"W={self.form.bits or FLOAT_BYTES * 8},M={CHANNEL_MODES[self.channels]}"
                history = f"A=PCM,F={self.sample_rate_hz},{width},T={self.tags.generator}\r\n"
                seconds = self.frames / self.sample_rate_hz
                broadcast = riff.bext(self.tags, measured, history)
                return broadcast + riff.acid(self.tags, seconds) + riff.info(self.tags)
            case "MP3":
                return id3.frames(self.tags)
        return vorbis_comment.comments(self.tags)

    def _put(self, part: Path, content: bytes) -> None:
        """Puts the tags where libsndfile made room for them."""
        match self.form.container:
            case "OGG":
                ogg.mend(part, self.seed % 2**32, content)
            case "WAV" if content:
                riff.replace_info(part, content)
            case "FLAC" if content:
                vorbis_comment.replace_in_flac(part, content)
            case "MP3" if self.tags:
                id3.replace(part, content, self.tags)


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
    """libsndfile puts the time of writing into the PEAK chunk of a float file, which RF64 has none of."""
    with path.open("r+b") as file:
        for name, start, _ in riff.chunks(file):
            if name == b"PEAK":
                file.seek(start + 4)  # After its version.
                file.write(bytes(4))
                return
