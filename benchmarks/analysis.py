"""Tempo and key against librosa, on the same clips of known tempo and key. Prints Markdown.

    python -m benchmarks.analysis [--draw 0] [--seconds 16] [--librosa-python PYTHON]

The clips are the `sketch` model's: 11 genres at 12 tempi, and each draw has other keys, moods and seeds. PYTHON is an
interpreter that has librosa; without it, this one's is taken, and where there is none, librosa is left out. Each side
runs in a process of its own; its memory is what that process needs beyond Python, NumPy and one clip. A tempo counts as
found within 2 %, "or an octave" if half or double does: for ours, only where that is the alternative it gives.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.librosa_analysis import peak_mb
from tests.support.sketch_clips import GENRES, RATE_HZ, Clip, clips, is_near_key

LONG_SECONDS = 300
RUNS = 5
RANGES = ((60, 89), (90, 119), (120, 149), (150, 180))


def contend(folder: Path) -> None:
    """Prints what our analysis finds in the folder's clips, as librosa_analysis.py does."""
    files = sorted(folder.glob("*.npy"))
    np.load(files[0])
    before_mb, began = peak_mb(), time.perf_counter()
    from export_service.analysis.analyzer import analyze
    from export_service.analysis.features import FeatureExtractor

    def run(samples: np.ndarray[Any, Any]) -> dict[str, object]:
        extractor = FeatureExtractor(RATE_HZ)
        for start in range(0, len(samples), RATE_HZ):
            extractor.feed(samples[start : start + RATE_HZ])
        found = analyze(extractor.finish())
        return {
            "bpm": found.tempo and found.tempo.bpm,
            "alternative_bpm": found.tempo and found.tempo.alternative_bpm,
            "key": found.key and found.key.name,
        }

    run(np.load(files[0]))
    ready = time.perf_counter()
    found = [run(np.load(file)) for file in files]
    done, mb = time.perf_counter(), peak_mb() - before_mb
    long = np.resize(np.load(files[0]), (LONG_SECONDS * RATE_HZ, 2))
    times = []
    for _ in range(RUNS):
        at = time.perf_counter()
        run(long)
        times.append(time.perf_counter() - at)
    cost = {"start_seconds": ready - began, "seconds": done - ready, "mb": mb, "long_seconds": min(times)}
    print(json.dumps({**cost, "found": found}))


def is_tempo(clip: Clip, found: dict[str, Any], *, octave: bool) -> bool:
    """Whether the tempo was found, or an octave of it."""
    bpm = found["bpm"] or 0.0
    said = {bpm}
    if octave:
        said |= {found["alternative_bpm"]} if "alternative_bpm" in found else {bpm / 2, 2 * bpm}
    return any(abs((candidate or 0.0) / clip.bpm - 1) <= 0.02 for candidate in said)


def is_key(clip: Clip, found: dict[str, Any], *, exactly: bool) -> bool:
    """Whether the key was found, or its relative or a fifth from it."""
    return bool(found["key"]) and is_near_key(found["key"], clip.key, exactly=exactly)


MEASURES: tuple[tuple[str, Callable[[Clip, dict[str, Any]], bool]], ...] = (
    ("tempo", lambda clip, found: is_tempo(clip, found, octave=False)),
    ("tempo or an octave", lambda clip, found: is_tempo(clip, found, octave=True)),
    ("key", lambda clip, found: is_key(clip, found, exactly=True)),
    ("key, relative or fifth", lambda clip, found: is_key(clip, found, exactly=False)),
)


def report(chosen: Sequence[Clip], contenders: dict[str, dict[str, Any]], seconds: float) -> None:
    """Prints the tables."""
    names = list(contenders)
    groups: list[tuple[str, Callable[[Clip], bool]]] = [("all", lambda clip: True)]
    groups += [
        (f"{low} to {high} BPM", lambda clip, low=low, high=high: low <= clip.bpm <= high) for low, high in RANGES
    ]
    groups += [(genre, lambda clip, genre=genre: clip.genre == genre) for genre in GENRES]
    print(f"\n{len(chosen)} clips of {seconds:g} s; share found, {' / '.join(names)}\n")
    print(f"| | clips | {' | '.join(title for title, _ in MEASURES)} |")
    print(f"| --- | ---: |{' ---: |' * len(MEASURES)}")
    for title, belongs in groups:
        at = [number for number, clip in enumerate(chosen) if belongs(clip)]
        cells = [
            " / ".join(
                f"{np.mean([measure(chosen[number], contenders[name]['found'][number]) for number in at]):.1%}"
                for name in names
            )
            for _, measure in MEASURES
        ]
        print(f"| {title} | {len(at)} | {' | '.join(cells)} |")
    print("\n| | import and first clip | all clips | × real time | memory |\n| --- | ---: | ---: | ---: | ---: |")
    for name, cost in contenders.items():
        speed = len(chosen) * seconds / cost["seconds"]
        print(
            f"| {name} | {cost['start_seconds']:.2f} s | {cost['seconds']:.2f} s | {speed:.0f} | {cost['mb']:.0f} MB |"
        )
    long = contenders["ours"]["long_seconds"]
    print(f"\n{LONG_SECONDS} s of stereo, best of {RUNS}: {1000 * long:.0f} ms, {LONG_SECONDS / long:.0f} × real time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=16.0)
    parser.add_argument("--librosa-python", default=sys.executable if find_spec("librosa") else "")
    parser.add_argument("--contend", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        contend(arguments.contend)
        return
    chosen = list(clips(arguments.draw))
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(chosen):
            np.save(Path(folder) / f"{number:03}.npy", clip.samples(arguments.seconds))
        commands = {"ours": [sys.executable, "-m", "benchmarks.analysis", "--contend", folder]}
        if arguments.librosa_python:
            script = str(Path(__file__).with_name("librosa_analysis.py"))
            commands["librosa"] = [arguments.librosa_python, script, folder, str(RATE_HZ)]
        contenders = {
            name: json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            for name, command in commands.items()
        }
    report(chosen, contenders, arguments.seconds)


if __name__ == "__main__":
    main()
