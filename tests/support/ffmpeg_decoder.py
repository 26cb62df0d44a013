"""Decodes audio files with an ffmpeg binary: an independent reader of every format that is written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import numpy.typing as npt

STREAM = re.compile(r"Stream #0:0.*?: Audio: .*?, (?P<rate>\d+) Hz, (?P<layout>mono|stereo)")
CHANNELS = {"mono": 1, "stereo": 2}
SAMPLE_TYPES = {"f32le": "<f4", "s32le": "<i4"}


def decode(path: Path, sample_format: str = "f32le") -> tuple[npt.NDArray[np.generic], int]:
    """Returns all samples, [frames, channels] of "f32le" or "s32le", and the sample rate in Hz."""
    with path.open("rb") as file:  # ffmpeg's own decoder of Opus differs from the reference decoder at low bit rates.
        decoder = ["-codec:a", "libopus", "-request_sample_fmt", "flt"] if b"OpusHead" in file.read(100) else []
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-xerror", *decoder, "-i", str(path), "-f", sample_format, "-"]
    completed = subprocess.run(command, capture_output=True, check=True)
    found = STREAM.search(completed.stderr.decode(errors="replace"))
    assert found is not None, completed.stderr
    samples = np.frombuffer(completed.stdout, SAMPLE_TYPES[sample_format])
    return samples.reshape(-1, CHANNELS[found["layout"]]), int(found["rate"])
