"""Writes the renders of the sketch model in docs/sketch/: six MP3 files, and a picture of each.

    make sketch-renders

A picture shows the stems over time, the notes of bass, chords and melody, and the spectrum of the mix, all on one time
axis that is divided into the sections of the piece.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import soundfile
from PIL import Image

from generation_service.models.base import GenerationParameters
from generation_service.models.sketch.piece import Piece, compose
from generation_service.models.sketch.synthesis.stem_bus import STEMS
from generation_service.models.sketch.synthesizer import INFO

mpl.use("Agg")
from matplotlib import pyplot as plt

FOLDER = Path(__file__).parent / "sketch"
SECONDS = 20.0
RENDERS = (
    ("lo-fi", "chill lo-fi hip hop in D minor, 78 BPM", 3),
    ("trance", "uplifting trance in A minor, 138 BPM", 5),
    ("funk", "funk in E minor, 106 BPM", 2),
    ("bossa-nova", "bossa nova in F major, 128 BPM, flute", 4),
    ("metal", "metal in E minor, 152 BPM", 8),
    ("classical", "classical in G major, 84 BPM, piano and strings", 7),
)
"""(file name, prompt, seed)"""
COLOURS = {"drums": "#E69F00", "bass": "#56B4E9", "chords": "#009E73", "melody": "#CC79A7", "texture": "#999999"}
"""Of Okabe and Ito, which colour-blind people can tell apart."""
SPECTRUM_FRAMES, SPECTRUM_HOP = 4096, 800
RANGE_DB = 75.0
MP3_COMPRESSION = 0.62
"""Of libsndfile; 128 kbit/s."""
PICTURE_COLOURS = 120


def render(prompt: str, seed: int) -> tuple[Piece, npt.NDArray[np.float32]]:
    """The piece, and its stems: [stems, 2, frames]."""
    piece = compose(GenerationParameters(prompt, round(SECONDS * INFO.sample_rate_hz), seed))
    blocks = []
    while (block := piece.render_block()).shape[2]:
        blocks.append(block)
    return piece, np.concatenate(blocks, axis=2)


def draw(piece: Piece, stems: npt.NDArray[np.float32], title: str, path: Path) -> None:
    """Draws the picture of a piece."""
    rate = INFO.sample_rate_hz
    figure, axes = plt.subplots(3, 1, figsize=(10, 6.4), sharex=True, height_ratios=(2, 2, 2), layout="constrained")
    _draw_stems(axes[0], stems, rate)
    _draw_notes(axes[1], piece, rate)
    _draw_spectrum(axes[2], stems.sum(axis=(0, 1)) / 2.0, rate)
    for axis in axes:
        for section in piece.sections:
            axis.axvline(section.start_frame / rate, color="black", linewidth=0.6, alpha=0.5)
    for section in piece.sections:
        axes[0].text(section.start_frame / rate + 0.08, len(STEMS) - 0.45, section.name, fontsize=8)
    axes[0].set_title(title, fontsize=10)
    axes[2].set_xlabel("seconds")
    axes[2].set_xlim(0.0, SECONDS)
    figure.savefig(path, dpi=72)
    plt.close(figure)
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(PICTURE_COLOURS, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def _draw_stems(axis: Any, stems: npt.NDArray[np.float32], rate: int) -> None:
    hop = rate // 50
    for row, (name, stem) in enumerate(zip(STEMS, stems, strict=True)):
        mono = np.abs(stem).max(axis=0)
        peaks = mono[: len(mono) // hop * hop].reshape(-1, hop).max(axis=1)
        place = len(STEMS) - 1 - row
        height = 0.45 * peaks / max(float(np.abs(stems).max()), 1e-9)
        seconds = np.arange(len(peaks)) * hop / rate
        axis.fill_between(seconds, place - height, place + height, color=COLOURS[name], linewidth=0)
    axis.set_yticks(range(len(STEMS)), STEMS[::-1])
    axis.set_ylim(-0.6, len(STEMS) - 0.1)


def _draw_notes(axis: Any, piece: Piece, rate: int) -> None:
    for note in (note for bar in piece.bars() for note in bar if note.pitches):
        start, length = note.start / rate, note.gate / rate
        axis.hlines(
            note.pitches,
            start,
            start + length,
            color=COLOURS[note.stem],
            linewidth=1.6,
            alpha=0.4 + 0.6 * note.velocity,
        )
    axis.set_ylabel("MIDI pitch")


def _draw_spectrum(axis: Any, mono: npt.NDArray[np.float32], rate: int) -> None:
    windows = np.lib.stride_tricks.sliding_window_view(mono, SPECTRUM_FRAMES)[::SPECTRUM_HOP]
    power = 20.0 * np.log10(np.abs(np.fft.rfft(windows * np.hanning(SPECTRUM_FRAMES), axis=1)).T + 1e-6)
    hz = np.geomspace(40.0, rate / 2.0, 110)
    rows = np.round(hz * SPECTRUM_FRAMES / rate).astype(int).clip(0, len(power) - 1)
    image = power[rows]
    seconds = (np.arange(image.shape[1]) * SPECTRUM_HOP + SPECTRUM_FRAMES / 2) / rate
    axis.pcolormesh(seconds, hz, image, vmin=image.max() - RANGE_DB, cmap="cividis", shading="nearest", rasterized=True)
    axis.set_yscale("log")
    axis.set_ylabel("Hz")


def main() -> None:
    """Writes all files."""
    FOLDER.mkdir(exist_ok=True)
    for name, prompt, seed in RENDERS:
        piece, stems = render(prompt, seed)
        mix = stems.sum(axis=0, dtype=np.float32).T
        path = FOLDER / f"{name}.mp3"
        soundfile.write(
            path, mix, INFO.sample_rate_hz, format="MP3", bitrate_mode="CONSTANT", compression_level=MP3_COMPRESSION
        )
        draw(piece, stems, f"{prompt} (seed {seed})", FOLDER / f"{name}.png")
        print(name, *(f"{file.stat().st_size / 1000:.0f} kB" for file in (path, path.with_suffix(".png"))), flush=True)


if __name__ == "__main__":
    main()
