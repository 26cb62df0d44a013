"""Makes audio files with another program: ffmpeg, as bytes, written to a file or into a pipe."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import imageio_ffmpeg

PIPED = "-"
"""As the name of the output file: ffmpeg writes into a pipe, so it cannot go back to write the length."""


def ffmpeg(*arguments: str, stdin: bytes | None = None, output: str = PIPED) -> bytes:
    """Returns what ffmpeg writes with these arguments, which end before the name of the output file.

    `output` is PIPED, or a file name such as "a.wav" for a file that ffmpeg can seek in. With `stdin`, use "-i -".
    """
    with tempfile.TemporaryDirectory() as folder:
        file = PIPED if output == PIPED else str(Path(folder, output))
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", *arguments, file]
        if stdin is not None:
            command.remove("-nostdin")
        result = subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr.decode(errors="replace")
        return result.stdout if output == PIPED else Path(file).read_bytes()


def decode(content: bytes, *options: str) -> bytes:
    """Returns the samples of a file as ffmpeg decodes them: little-endian float32, interleaved."""
    return ffmpeg("-i", "-", *options, "-f", "f32le", "-c:a", "pcm_f32le", stdin=content)


def tones(layout: str, seconds: float = 0.5, rate_hz: int = 44_100) -> list[str]:
    """Returns ffmpeg's arguments for an input with one steady tone per channel: 200 Hz in the first, 300 Hz in the
    second and so on, at half of full scale. `layout` is ffmpeg's name, such as "stereo" or "5.1".
    """
    channels = CHANNEL_COUNTS[layout]
    waves = "|".join(f"0.5*sin(2*PI*{200 + 100 * channel}*t)" for channel in range(channels))
    return ["-f", "lavfi", "-i", f"aevalsrc={waves}:c={layout}:s={rate_hz}:d={seconds}"]


CHANNEL_COUNTS = {
    "mono": 1,
    "stereo": 2,
    "2.1": 3,
    "3.0": 3,
    "quad": 4,
    "4.0": 4,
    "5.0": 5,
    "5.1": 6,
    "6.1": 7,
    "7.1": 8,
}
