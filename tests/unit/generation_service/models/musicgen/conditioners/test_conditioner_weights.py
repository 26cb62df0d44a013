"""The weights of a conditioner: what is missing or has another shape is named."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import torch

from dgx_music.errors import FailedPrecondition
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint
from generation_service.models.musicgen.conditioners.conditioner_weights import ConditionerWeights


@pytest.fixture(scope="module")
def weights(melody: Path) -> ConditionerWeights:
    return ConditionerWeights(read_checkpoint(melody), "self_wav", "cpu")


def test_projection_is_that_of_the_conditioner(weights: ConditionerWeights, melody: Path) -> None:
    state = torch.load(melody / "state_dict.bin")["best_state"]
    prefix = "condition_provider.conditioners.self_wav.output_proj."
    features = torch.randn(5, 12)
    expected = features @ state[f"{prefix}weight"].t() + state[f"{prefix}bias"]
    torch.testing.assert_close(weights.projection(12, 64)(features), expected)


def test_missing_tensor_is_named(weights: ConditionerWeights) -> None:
    with pytest.raises(FailedPrecondition, match=r"no condition_provider\.conditioners\.self_wav\.embed\.weight"):
        weights("embed.weight", 3)


def test_tensor_of_another_shape_is_named(weights: ConditionerWeights) -> None:
    with pytest.raises(FailedPrecondition, match=r"output_proj\.weight has the shape \[64, 12\]; expected \[64, 24\]"):
        weights.projection(24, 64)
