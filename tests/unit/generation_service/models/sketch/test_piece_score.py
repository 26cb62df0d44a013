"""The score of the sketch: what is heard, note for note."""

from itertools import pairwise

import numpy as np
import pytest

from generation_service.models.base import GenerationParameters
from generation_service.models.sketch import Sketch

RATE_HZ = 32_000
MODEL = Sketch()


@pytest.mark.parametrize("prompt", ["lo-fi with a bass", "trap", "jazz trio", "ambient"])
def test_notes_are_valid_and_do_not_overlap(prompt: str) -> None:
    parameters = GenerationParameters(prompt, 20 * RATE_HZ, 3)
    score = MODEL.write_score(parameters)
    assert score.sections == MODEL.prefill(parameters).sections
    assert {track.stem for track in score.tracks} <= set(MODEL.render_stems(parameters).names)
    for track in score.tracks:
        assert track.notes
        for note in track.notes:
            assert 0 <= note.start_frame < note.end_frame <= score.total_frames
            assert 0 <= note.pitch <= 127
            assert 1 <= note.velocity <= 127
        for pitch in {note.pitch for note in track.notes}:
            of_pitch = [note for note in track.notes if note.pitch == pitch]
            assert all(first.end_frame <= second.start_frame for first, second in pairwise(of_pitch))


def test_drum_notes_are_heard_where_they_are_written() -> None:
    """The sound rises within 4 ms of each kick that nothing else sounds before."""
    parameters = GenerationParameters("house at 120 BPM", 16 * RATE_HZ, 3)
    score = MODEL.write_score(parameters)
    rendering = MODEL.render_stems(parameters)
    stems = np.concatenate(list(rendering.blocks()), axis=1)
    drums = np.abs(stems[rendering.names.index("drums")]).max(axis=1)
    track = next(track for track in score.tracks if track.stem == "drums")
    onsets = sorted({note.start_frame for note in track.notes if note.start_frame + 1000 < len(drums)})
    assert len(onsets) > 20
    quiet = [at for before, at in pairwise(onsets) if at - before > 3000 and drums[at - 64 : at].max() < 0.01]
    assert quiet
    for at in quiet:
        assert drums[at : at + 128].max() > 2 * drums[at - 64 : at].max()
