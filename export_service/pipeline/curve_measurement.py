"""Measures the loudness curve of a finished file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export_service.dsp.curve_meter import CurveMeter, LoudnessCurve
from export_service.formats.reader import open_sequential
from export_service.library.store import translate_file_errors
from service_runtime.audio.block_size import BLOCK_FRAMES


def measure_curve(path: Path, max_points: int) -> LoudnessCurve:
    """Returns the curves of the whole file as players decode it, in at most `max_points` points.

    Raises NotFound if the file no longer exists, Unavailable if it can't be read. Blocks: call it in a thread. Of the
    file, only a block is in memory at a time.
    """
    with translate_file_errors(path), open_sequential(path, as_played=True) as file:
        meter = CurveMeter(file.samplerate, file.channels)
        block = np.empty((BLOCK_FRAMES, file.channels), dtype=np.float32)
        while len(samples := file.read(out=block)):
            meter.feed(samples)
        return meter.curve(meter.finish(), max_points)
