"""Loops of the sketch: their end leads into their start."""

import numpy as np
import pytest

from generation_service.models.base import FloatArray, GenerationParameters, LoopShape
from generation_service.models.sketch import Sketch

RATE_HZ = 32_000
MODEL = Sketch()


def parameters(prompt: str, beats: int, bpm: float) -> GenerationParameters:
    frames = round(beats * 60 / bpm * RATE_HZ)
    return GenerationParameters(prompt, frames, 3, loop=LoopShape(beats, bpm))


def render(request: GenerationParameters) -> FloatArray:
    state = MODEL.prefill(request)
    blocks = []
    while len(block := MODEL.step([state])[0]):
        blocks.append(block)
    return np.concatenate(blocks)


@pytest.mark.parametrize(("prompt", "beats", "bpm"), [("lo-fi", 8, 84), ("techno", 4, 131.7), ("ambient", 6, 90)])
def test_what_follows_the_end_is_the_start(prompt: str, beats: int, bpm: float) -> None:
    """No sample jumps more at the seam than elsewhere."""
    request = parameters(prompt, beats, bpm)
    loop = render(request)
    assert len(loop) == request.frames
    twice = np.concatenate([loop, loop])
    seam = np.abs(np.diff(twice, 2, axis=0)).max(axis=1)[len(loop) - 3 : len(loop) + 2].max()
    elsewhere = np.abs(np.diff(loop, 2, axis=0)).max(axis=1)
    assert seam <= np.percentile(elsewhere, 99.5)
    # Neither silence nor a fade at the ends: the reverb of the end is heard at the start.
    level = np.sqrt(np.mean(loop**2))
    assert np.sqrt(np.mean(loop[:2000] ** 2)) > 0.05 * level
    assert np.sqrt(np.mean(loop[-2000:] ** 2)) > 0.02 * level


def test_a_loop_has_no_ending_and_one_section() -> None:
    request = parameters("house in C minor", 16, 124)
    score = MODEL.write_score(request)
    assert [(s.name, s.start_frame, s.end_frame) for s in score.sections] == [("loop", 0, request.frames)]
    assert score.bpm == 124
    assert max(note.end_frame for track in score.tracks for note in track.notes) <= request.frames
    assert MODEL.prefill(request).metadata["bpm"] == 124


def test_stems_of_a_loop_add_up_to_it() -> None:
    request = parameters("lo-fi", 6, 84)
    stems = np.concatenate(list(MODEL.render_stems(request).blocks()), axis=1)
    assert np.array_equal(stems.sum(axis=0), render(request))
