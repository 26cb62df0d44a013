"""Measures the `sketch` model by what can be heard: tempo, key, swing, density, brightness, loudness. Prints Markdown.

    python -m benchmarks.sketch [--seeds 5] [--seconds 20] [--genre GENRE …] [--levels]

Tempo and key are found by export's own analysis, without knowing the prompt. A tempo counts as found if it is within
2 %, or if the alternative that the analysis reports is. "Nearest" is the smallest distance between two seeds by chroma
and onsets, where 0 is the same music; all of them are rendered again at one tempo and in one key for it. Speed is in
seconds of music per second of CPU time; the ratio compares it with a sine and an FFT of as many samples in the same
run, which does not depend on the machine as much. `--levels` only prints the gain of each style that would bring its
mean loudness to -16 LUFS.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, median

import numpy as np

from generation_service.models.sketch.composition.genres import STYLES
from tests.support.sketch_clips import is_near_key
from tests.support.sketch_measures import (
    RATE_HZ,
    analyse,
    distance,
    fingerprint,
    loudness_lufs,
    onset_density,
    render_sketch,
    spectral_centroid,
    swing,
)

TARGET_LUFS = -16.0
TEMPO_TOLERANCE = 0.02
BEATLESS = ("ambient",)
"""Has no beat, so that no tempo is the right answer."""


@dataclass(frozen=True)
class Take:
    """What was measured of one piece."""

    tempo_found: bool
    key_found: bool
    key_confidence: float
    lufs: float
    peak: float
    centroid_hz: float
    onsets: float
    swing: float
    speed: float


def measure(genre: str, seconds: float, seed: int) -> Take:
    """Renders and measures a genre with one seed."""
    style = STYLES[genre]
    started = time.process_time()
    piece = render_sketch(genre, seconds, seed)
    spent = time.process_time() - started
    found = analyse(piece.samples)
    tempi = (found.tempo.bpm, found.tempo.alternative_bpm) if found.tempo else ()
    return Take(
        tempo_found=any(abs(bpm / piece.bpm - 1.0) <= TEMPO_TOLERANCE for bpm in tempi)
        or (genre in BEATLESS and not tempi),
        key_found=found.key is not None and is_near_key(found.key.name, piece.key, exactly=True),
        key_confidence=found.key.confidence if found.key else 0.0,
        lufs=loudness_lufs(piece.samples),
        peak=float(np.abs(piece.samples).max()),
        centroid_hz=spectral_centroid(piece.samples),
        onsets=onset_density(piece.samples),
        swing=swing(piece.samples, piece.bpm, 0.5 if style.swing_eighths else 0.25),
        speed=seconds / spent,
    )


def nearest(genre: str, seconds: float, seeds: Sequence[int]) -> float:
    """The smallest distance between two seeds with the same tempo and key."""
    bpm = round(sum(STYLES[genre].bpm) / 2)
    prints = [fingerprint(render_sketch(f"{genre} at {bpm} BPM in A minor", seconds, seed)) for seed in seeds]
    return min((distance(first, second) for first, second in combinations(prints, 2)), default=math.nan)


def reference_speed(seconds: float) -> float:
    """Seconds of stereo per second of CPU time of one sine and one FFT back and forth."""
    started = time.process_time()
    phase = np.arange(int(seconds * RATE_HZ), dtype=np.float64) * (2.0 * math.pi * 440.0 / RATE_HZ)
    for _ in range(2):
        np.fft.irfft(np.fft.rfft(np.sin(phase)))
    return seconds / (time.process_time() - started)


def main() -> None:
    """Prints the table, or the gains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--genre", action="append", choices=list(STYLES))
    parser.add_argument("--levels", action="store_true")
    arguments = parser.parse_args()
    genres = arguments.genre or list(STYLES)
    seeds = range(arguments.seeds)
    takes = {genre: [measure(genre, arguments.seconds, seed) for seed in seeds] for genre in genres}
    if arguments.levels:
        for genre, found in takes.items():
            level = mean(take.lufs for take in found)
            print(f"{genre}: {STYLES[genre].gain} at {level:.1f} LUFS, "
                  f"gain={STYLES[genre].gain * 10 ** ((TARGET_LUFS - level) / 20):.2f}")  # fmt: skip
        return
    print("| genre | tempo | key | confidence | swing | onsets/s | centroid | LUFS | peak | nearest | speed |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for genre, found in takes.items():
        lufs = [take.lufs for take in found]
        print(
            f"| {genre} | {sum(take.tempo_found for take in found)}/{len(found)} "
            f"| {sum(take.key_found for take in found)}/{len(found)} | {mean(t.key_confidence for t in found):.2f} "
            f"| {median(take.swing for take in found):.2f} | {mean(take.onsets for take in found):.1f} "
            f"| {mean(take.centroid_hz for take in found):,.0f} Hz | {min(lufs):.1f} … {max(lufs):.1f} "
            f"| {max(take.peak for take in found):.2f} | {nearest(genre, arguments.seconds, seeds):.2f} "
            f"| {median(take.speed for take in found):.0f}× |",
            flush=True,
        )
    everything = [take for found in takes.values() for take in found]
    speed = median(take.speed for take in everything)
    print(
        f"\nTempo found in {mean(take.tempo_found for take in everything):.1%}, key in "
        f"{mean(take.key_found for take in everything):.1%} of {len(everything)} takes; {speed:.0f}× real time on one "
        f"thread, 1/{reference_speed(60.0) / speed:.0f} of the speed of a sine and an FFT."
    )


if __name__ == "__main__":
    main()
