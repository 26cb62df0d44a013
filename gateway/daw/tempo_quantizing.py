"""Stretches a take slightly in time, without changing its pitch, so that its bars fall on the grid of a steady tempo.

The stretching is that of Rubber Band, in pedalboard. Its faster engine is used: measured on clicks, it puts them where
they should be within 3 ms, while the finer one drifts by 60 ms in 40 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dgx_music.errors import FailedPrecondition
from export_service.pipeline.beat_grid_reading import read_beat_grid
from gateway.daw.session_builder import Take
from gateway.daw.session_model import AudioFile
from gateway.daw.take_layout import TakeGrid
from gateway.daw.tempo_map import TempoMap, TempoPoint
from gateway.daw.wav_file import WavWriter, read_samples, read_wav
from gateway.file_replacement import replacing
from service_runtime.optional_deps import install_extra_command

MAX_STRETCH = 0.08
"""A bar becomes faster or slower by this share at most; more is heard."""
NO_STRETCH = 0.0005
"""Music that is this near to the tempo stays as it is, sample for sample."""
MIN_CONFIDENCE = 0.5
"""Beats that are less sure than this may be others, and the music would be distorted."""
MAX_SECONDS = 900.0
"""The whole take is in memory: 15 minutes at 48 kHz take about 1 GB."""
WHOLE_BPM_SHARE = 0.01
"""The tempo becomes a whole number if that is within this share of it."""
FULL_SCALE = 1.0 - 2.0**-20

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StretchPlan:
    """Where each moment of a take goes."""

    source: FloatArray
    """[points]: times in seconds, from 0 to the end of the take, ascending."""
    target: FloatArray
    """[points]: where they go."""

    def move(self, seconds: float) -> float:
        """Returns where a time goes."""
        return float(np.interp(seconds, self.source, self.target))


def require_stretcher() -> None:
    """Raises FailedPrecondition with the way out if nothing can be stretched here."""
    if find_spec("pedalboard") is None:
        raise FailedPrecondition(
            f"quantizing the tempo requires the package pedalboard; install it with: {install_extra_command('daw')}",
            reason="MISSING_DEPENDENCY",
        )


def choose_tempo(grids: Sequence[TakeGrid], seconds: Sequence[float]) -> float:
    """Returns the tempo in beats per minute that takes of these lengths get: the mean one of the first take that has
    any, as a whole number if that is near.
    """
    for grid, length in zip(grids, seconds, strict=True):
        if grid.is_known:
            beats = _beat_map(grid).beat_at(max(length - grid.first_bar_seconds, 1.0))
            bpm = 60.0 * beats / max(length - grid.first_bar_seconds, 1.0)
            return round(bpm) if abs(round(bpm) / bpm - 1.0) <= WHOLE_BPM_SHARE else round(bpm, 1)
    return TakeGrid().bpm


def plan_stretch(name: str, grid: TakeGrid, seconds: float, bpm: float) -> StretchPlan | None:
    """Returns how a take of this length gets to a tempo; None if it is there already.

    Raises FailedPrecondition, which names the take, if its beats are not sure or too far from the tempo.
    """
    if not grid.is_known or grid.confidence < MIN_CONFIDENCE:
        raise FailedPrecondition(
            f"{name}: its beats are not sure enough to quantize them (confidence {grid.confidence:.2f}, "
            f"{MIN_CONFIDENCE} is needed); export it without --quantize-tempo",
            reason="BEATS_NOT_SURE",
        )
    if seconds > MAX_SECONDS:
        raise FailedPrecondition(
            f"{name}: it is {seconds:.0f} s long, and takes of up to {MAX_SECONDS:.0f} s can be quantized; export it "
            "without --quantize-tempo",
            reason="TAKE_TOO_LONG",
        )
    beat_map, step = _beat_map(grid), grid.beats_per_bar
    bars = max(1, int(beat_map.beat_at(seconds - grid.first_bar_seconds) // step))
    source = np.array([beat_map.seconds_at(step * bar) for bar in range(bars + 1)]) + grid.first_bar_seconds
    target_bar = step * 60.0 / bpm
    # What is before the first bar and after the last one goes on at their speed.
    speeds = np.diff(source) / target_bar
    extreme = float(speeds[np.abs(speeds - 1.0).argmax()])
    if abs(extreme - 1.0) > MAX_STRETCH:
        raise FailedPrecondition(
            f"{name}: a bar at {bpm / extreme:.4g} BPM would have to be stretched by {abs(extreme - 1.0):.0%} to be at "
            f"{bpm:.4g} BPM, and up to {MAX_STRETCH:.0%} is possible; export it without --quantize-tempo",
            reason="STRETCH_TOO_LARGE",
        )
    if np.abs(speeds - 1.0).max() <= NO_STRETCH:
        return None
    lead_in = grid.first_bar_seconds / speeds[0]
    target = lead_in + target_bar * np.arange(bars + 1)
    points = [(0.0, 0.0)] if grid.first_bar_seconds > 0.0 else []
    points += zip(source.tolist(), target.tolist(), strict=True)
    if points[-1][0] < seconds:
        points.append((seconds, points[-1][1] + (seconds - points[-1][0]) / speeds[-1]))
    times = np.array(points)
    return StretchPlan(times[:, 0], times[:, 1])


def quantize_take(take: Take, folder: Path, rate_hz: int, bpm: float) -> None:
    """Quantizes a take with its stems, whose files are in `folder`. Its grid is then steady at `bpm`, and its notes say
    how precise it has become. Blocks: call it in a thread. Raises FailedPrecondition and OSError.
    """
    plan = plan_stretch(take.name, take.grid, take.audio.frames / rate_hz, bpm)
    if plan is None:
        return
    take.audio, loss_db = stretch_file(folder / take.audio.name, plan)
    take.gain_db += loss_db
    stems = []
    for stem in take.stems:
        audio, loss_db = stretch_file(folder / stem.audio.name, plan)
        stems.append(replace(stem, audio=audio, gain_db=stem.gain_db + loss_db))
    take.stems = stems
    take.sections = [(plan.move(seconds), label) for seconds, label in take.sections]
    first_bar = plan.move(take.grid.first_bar_seconds)
    take.grid = replace(take.grid, tempi=(TempoPoint(first_bar, 0, bpm),))
    deviation = measure_deviation(folder / take.audio.name, first_bar, bpm)
    precision = "no beats are heard in it" if deviation is None else f"to within {deviation * 1000:.0f} ms"
    take.notes.append(f"quantized to {bpm:.4g} BPM, {precision}")


def stretch_file(path: Path, plan: StretchPlan) -> tuple[AudioFile, float]:
    """Replaces a 24-bit WAV file by its stretched audio. Returns the file, and by how many dB it had to be made quieter
    because stretching has raised its peaks above full scale.
    """
    import pedalboard

    info = read_wav(path)
    samples = read_samples(path, info)
    edges = np.round(plan.source * info.sample_rate_hz).astype(np.int64)
    edges[-1] = info.frames
    factors = np.repeat(np.diff(plan.source) / np.diff(plan.target), np.diff(edges))
    stretched = pedalboard.time_stretch(
        np.ascontiguousarray(samples.T), info.sample_rate_hz, stretch_factor=factors, high_quality=False
    ).T
    frames = round(float(plan.target[-1]) * info.sample_rate_hz)
    peak = float(np.abs(stretched).max(initial=0.0))
    scale = min(1.0, FULL_SCALE / peak) if peak else 1.0
    with replacing(path) as part, WavWriter(part, info.sample_rate_hz, info.channels) as writer:
        writer.write(stretched[:frames] * np.float32(scale))
        writer.write(np.zeros((max(frames - len(stretched), 0), info.channels), dtype=np.float32))
    return AudioFile(path.name, frames, info.channels), -20.0 * float(np.log10(scale))


def measure_deviation(path: Path, first_bar_seconds: float, bpm: float) -> float | None:
    """Returns how far the beats that are heard in a file are from a grid: the 95th percentile in seconds; None if none
    are heard.
    """
    beats = np.array(read_beat_grid(path, bpm).beats)
    if not len(beats):
        return None
    interval = 60.0 / bpm
    offsets = (beats - first_bar_seconds) / interval
    return float(np.percentile(np.abs(offsets - np.round(offsets)), 95.0)) * interval


def _beat_map(grid: TakeGrid) -> TempoMap:
    """Returns the tempi of a take from its first bar on."""
    return TempoMap([replace(point, seconds=point.seconds - grid.first_bar_seconds) for point in grid.tempi])
