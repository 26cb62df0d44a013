"""Makes audio files with another program: ffmpeg, as bytes, written to a file or into a pipe."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import imageio_ffmpeg
import numpy as np

PIPED = "-"
"""As the name of the output file: ffmpeg writes into a pipe, so it cannot go back to write the length."""
CHANNEL_COUNTS = {
    "mono": 1,
    "stereo": 2,
    "2.1": 3,
    "3.0": 3,
    "quad": 4,
    "5.0": 5,
    "5.1": 6,
    "5.1(side)": 6,
    "6.1": 7,
    "7.1": 8,
    "5.1.2": 8,
}
"""ffmpeg's name of a channel layout → its number of channels."""


def ffmpeg(*arguments: str, stdin: bytes | None = None, output: str = PIPED) -> bytes:
    """Returns what ffmpeg writes with these arguments, which end before the name of the output file.

    `output` is PIPED, or a file name such as "a.wav" for a file in which ffmpeg can seek. With `stdin`, use "-i -".
    """
    with tempfile.TemporaryDirectory() as folder:
        file = PIPED if output == PIPED else str(Path(folder, output))
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments, file]
        result = subprocess.run(command, input=stdin or b"", capture_output=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr.decode(errors="replace")
        return result.stdout if output == PIPED else Path(file).read_bytes()


@cache
def encode_tones(
    *options: str, output: str = PIPED, layout: str = "stereo", seconds: float = 0.5, rate_hz: int = 44_100
) -> bytes:
    """Returns the tones of `tones`, encoded by ffmpeg with these options of the output."""
    sines = "|".join(f"0.5*sin(2*PI*{200 + 100 * channel}*t)" for channel in range(CHANNEL_COUNTS[layout]))
    source = f"aevalsrc={sines}:c={layout}:s={rate_hz}:d={seconds}"
    return ffmpeg("-f", "lavfi", "-i", source, *options, output=output)


def tones(channels: int = 2, seconds: float = 0.5, rate_hz: int = 44_100) -> np.ndarray:
    """Returns [frames, channels]: a tone at half of full scale in each channel, of 200 Hz in the first, 300 Hz in
    the second, and so on.
    """
    time = np.arange(round(seconds * rate_hz))[:, None] / rate_hz
    return (0.5 * np.sin(2 * np.pi * (200 + 100 * np.arange(channels)) * time)).astype(np.float32)


def decode(content: bytes, channels: int = 2) -> np.ndarray:
    """Returns the samples of a file as ffmpeg decodes them: [frames, channels]."""
    with tempfile.NamedTemporaryFile() as file:  # In a pipe, ffmpeg could not seek.
        Path(file.name).write_bytes(content)
        raw = ffmpeg("-i", file.name, "-f", "f32le", "-c:a", "pcm_f32le")
    return np.frombuffer(raw, dtype="<f4").reshape(-1, channels)
