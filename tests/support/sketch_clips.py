"""Clips of known tempo and key, made by the `sketch` model from prompts that say both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from generation_service.models.base import GenerationParameters
from generation_service.models.sketch import Sketch

RATE_HZ = Sketch().info.sample_rate_hz
GENRES = (
    "hip hop", "trap", "lo-fi", "house", "techno", "drum and bass", "rock", "pop", "jazz", "classical", "ambient",
)  # fmt: skip
TEMPI = (60, 71, 82, 93, 104, 114, 125, 136, 147, 158, 169, 180)
"""Beats a minute."""
TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
MOODS = ("", "dark ", "happy ", "chill ", "energetic ")


@dataclass(frozen=True)
class Clip:
    """What was asked for, which is what the sketch plays."""

    prompt: str
    genre: str
    bpm: float
    key: str
    seed: int

    def samples(self, seconds: float = 16.0) -> npt.NDArray[np.float32]:
        """[frames, 2] at `RATE_HZ`."""
        model = Sketch()
        frames = round(seconds * RATE_HZ)
        state = model.prefill(GenerationParameters(prompt=self.prompt, frames=frames, seed=self.seed))
        assert (state.metadata["bpm"], state.metadata["key"]) == (self.bpm, self.key)
        blocks: list[npt.NDArray[np.float32]] = []
        while sum(map(len, blocks)) < frames:
            blocks += model.step([state])
        return np.concatenate(blocks)


def clips(draw: int = 0) -> Iterator[Clip]:
    """Every genre at every tempo, 132 clips: keys, moods and seeds differ, and are others in another draw."""
    for number, (genre, bpm) in enumerate((genre, bpm) for genre in GENRES for bpm in TEMPI):
        random = np.random.default_rng([draw, number])
        tonic, mode = TONICS[random.integers(12)], ("major", "minor")[random.integers(2)]
        mood, seed = MOODS[random.integers(len(MOODS))], int(random.integers(1 << 30))
        prompt = f"{mood}{genre} at {bpm} BPM in {tonic} {mode}"
        yield Clip(prompt, genre, float(bpm), f"{tonic} {mode}", seed)


def is_near_key(found: str, known: str, *, exactly: bool = False) -> bool:
    """Whether a key is the one known, its relative, or a fifth from it."""
    (tonic, mode), (known_tonic, known_mode) = (_parsed(name) for name in (found, known))
    steps = (tonic - known_tonic) % 12
    if mode == known_mode:
        return steps == 0 or (not exactly and steps in (5, 7))
    return not exactly and steps == (9 if known_mode == "major" else 3)


def _parsed(key: str) -> tuple[int, str]:
    tonic, mode = key.split()
    return {**{name: at for at, name in enumerate(TONICS)}, "Db": 1, "G#": 8}[tonic], mode
