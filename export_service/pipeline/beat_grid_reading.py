"""Finds the beats of audio files."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from export_service.analysis.beat_features import BeatFeatureExtractor
from export_service.analysis.beat_grid import BeatGrid, find_beat_grid
from export_service.formats.reader import open_sequential
from export_service.library.store import translate_file_errors
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.failpoints import failpoint

_one_at_a_time = threading.Lock()
"""It computes for seconds: several together would take the processor from exports, and end no sooner."""


def read_beat_grid(path: Path, expected_bpm: float = 0.0) -> BeatGrid:
    """Returns the beat grid of a whole file. `expected_bpm` is the tempo that the music is known to have, or 0.

    Raises NotFound if the file no longer exists, Unavailable if it can't be read. Blocks: call it in a thread. Memory
    use is about 2 kB per second of audio.
    """
    failpoint("export.beat_grid")
    with translate_file_errors(path), open_sequential(path) as file, _one_at_a_time:
        extractor = BeatFeatureExtractor(file.samplerate)
        block = np.empty((BLOCK_FRAMES, file.channels), dtype=np.float32)
        while len(samples := file.read(out=block)):
            extractor.feed(samples)
        return find_beat_grid(extractor.finish(), expected_bpm)
