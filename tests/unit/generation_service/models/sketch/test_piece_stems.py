"""The stems of the sketch: their sum is the mix, exactly."""

import numpy as np
import pytest

from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.notation.score import KnowsItsNotes
from generation_service.models.sketch import Sketch

RATE_HZ = 32_000
MODEL = Sketch()


def mix(parameters: GenerationParameters) -> FloatArray:
    state = MODEL.prefill(parameters)
    blocks = []
    while len(block := MODEL.step([state])[0]):
        blocks.append(block)
    return np.concatenate(blocks)


@pytest.mark.parametrize(("prompt", "seconds"), [("lo-fi", 6.0), ("techno", 3.3), ("ambient", 0.1), ("solo piano", 4)])
def test_stems_add_up_to_the_mix_in_any_order_and_depth(prompt: str, seconds: float) -> None:
    parameters = GenerationParameters(prompt, round(seconds * RATE_HZ), 5)
    rendering = MODEL.render_stems(parameters)
    stems = np.concatenate(list(rendering.blocks()), axis=1)
    assert len(stems) == len(rendering.names)
    whole = mix(parameters)
    assert np.array_equal(sum(stems[1:], stems[0]), whole)
    assert np.array_equal(sum(stems[::-1][1:], stems[-1]), whole)
    as_24_bit = [np.rint(samples.astype(np.float64) * 2**23).astype(np.int32) for samples in stems]
    assert np.array_equal(sum(as_24_bit), np.rint(whole.astype(np.float64) * 2**23))


def test_stems_that_have_no_notes_are_left_out() -> None:
    rendering = MODEL.render_stems(GenerationParameters("house without drums, no bass", 4 * RATE_HZ, 1))
    assert "drums" not in rendering.names
    assert "bass" not in rendering.names


def test_the_sketch_knows_its_notes() -> None:
    assert MODEL.info.knows_its_notes
    assert isinstance(MODEL, KnowsItsNotes)
