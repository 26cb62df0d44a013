"""Compares export with other loudness normalizers: `make bench-export`. Prints Markdown, ratios first.

    python -m benchmarks.export [--seconds 30,300,3600] [--rounds 3] [--paths linear,limited,music] [--only-ours]

The paths are one gain for everything, a limiter on the hits of a quiet mix, and a limiter on dense music that is asked
for -12 LUFS. All sides get the same samples in float32, the same target and a ceiling of -1 dBTP, and write PCM_24.

Ours is measured as a whole: a gRPC stream to a server process until its response says that the file is stored, with
true peak, tempo, key, spool, fsync and SHA-256. The others read a file and write a file: pyloudnorm + soundfile load
it, measure it, apply a gain and write it, without checking the peaks; ffmpeg's loudnorm takes two passes, the second
with the values measured by the first (skipped for long files). The sides take turns. Figures are medians of the rounds;
long files get one round.

"× real time" is seconds of audio per second of wall time. On a busy machine CPU time says more: it is that of the
process, in all its threads. Memory is a process's peak above its level when it was ready: our server's after a short
export, pyloudnorm's after a short file, for ffmpeg all of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.export_runners import (
    RATE_HZ,
    SIGNALS,
    Figures,
    export_server,
    ffmpeg,
    meter_speeds,
    ours,
    pyloudnorm,
    write_input,
)

ONE_ROUND_FROM_SECONDS = 1800
FFMPEG_MAX_SECONDS = 300
METER_SECONDS = 300
TARGETS = {"linear": "≥ 500×", "limited": "≥ 300×", "music": "≥ 300×"}
MAX_MB = 10

Table = dict[tuple[str, str, int], Figures]
"""By normalization path, side and duration in seconds."""


async def measure(folder: Path, paths: Sequence[str], lengths: Sequence[int], rounds: int, *, others: bool) -> Table:
    """Measures all sides and returns the medians."""
    table: Table = {}
    for path in paths:
        target_lufs = SIGNALS[path].target_lufs
        async with export_server(folder / "data", path) as server:
            for seconds in lengths:
                runs = defaultdict(list)
                file = folder / f"{path}.wav"
                if others:
                    write_input(file, path, seconds)
                for _ in range(1 if seconds >= ONE_ROUND_FROM_SECONDS else rounds):
                    runs["ours"].append(await ours(server, path, seconds))
                    if others:
                        runs["pyloudnorm"].append(pyloudnorm(file, target_lufs))
                    if others and seconds <= FFMPEG_MAX_SECONDS:
                        runs["ffmpeg"].append(ffmpeg(file, target_lufs))
                file.unlink(missing_ok=True)
                for side, figures in runs.items():
                    table[path, side, seconds] = Figures(*map(statistics.median, zip(*figures, strict=True)))
    return table


def report(table: Table, paths: Sequence[str], lengths: Sequence[int]) -> None:
    """Prints one table per normalization path."""
    titles = {"ours": "ours", "pyloudnorm": "pyloudnorm + soundfile", "ffmpeg": "ffmpeg loudnorm, two passes"}
    for path in paths:
        print(f"\n| {path} | {' | '.join(_format_length(seconds) for seconds in lengths)} |")
        print(f"| --- |{' ---: |' * len(lengths)}")

        def print_row(title: str, cells: Sequence[str]) -> None:
            if any(cells):
                print(f"| {title} | {' | '.join(cells)} |")

        sides = [side for side in titles if any((path, side, seconds) in table for seconds in lengths)]
        for side in sides[1:]:
            pairs = [(table[path, "ours", seconds], table.get((path, side, seconds))) for seconds in lengths]
            print_row(
                f"ours / {titles[side]}, speed",
                [f"**{other.wall_seconds / own.wall_seconds:.2f}×**" if other else "" for own, other in pairs],
            )
            print_row(
                f"{titles[side]} / ours, memory",
                [f"**{other.peak_mb / own.peak_mb:.1f}×**" if other else "" for own, other in pairs],
            )
        for side in sides:
            found = [table.get((path, side, seconds)) for seconds in lengths]
            pairs = list(zip(lengths, found, strict=True))
            target = f" (target {TARGETS[path]})" if side == "ours" else ""
            print_row(
                f"{titles[side]}, × real time{target}",
                [f"{seconds / one.wall_seconds:.0f}×" if one else "" for seconds, one in pairs],
            )
            print_row(
                f"{titles[side]}, s of audio per CPU second",
                [f"{seconds / one.cpu_seconds:.0f}" if one else "" for seconds, one in pairs],
            )
            limit = f" (target ≤ {MAX_MB} MB)" if side == "ours" else ""
            print_row(f"{titles[side]}, memory{limit}", [f"{one.peak_mb:.1f} MB" if one else "" for one in found])


def _format_length(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds >= 60 else f"{seconds} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", default="30,300,3600")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--paths", default=",".join(SIGNALS))
    parser.add_argument("--only-ours", action="store_true")
    arguments = parser.parse_args()
    lengths, paths = [int(seconds) for seconds in arguments.seconds.split(",")], arguments.paths.split(",")
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        others = not arguments.only_ours
        table = asyncio.run(measure(Path(folder), paths, lengths, arguments.rounds, others=others))
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}; {RATE_HZ} Hz stereo, "
        f"PCM_24; load average {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end."
    )
    report(table, paths, lengths)
    if others and find_spec("pyebur128"):
        own, libebur128 = meter_speeds(METER_SECONDS, arguments.rounds)
        print(
            f"\nMeasurement only (all loudness values, true peak), {_format_length(METER_SECONDS)}, one thread: ours "
            f"**{own / libebur128:.2f}×** libebur128's speed ({own:.0f}× and {libebur128:.0f}× real time)."
        )


if __name__ == "__main__":
    main()
