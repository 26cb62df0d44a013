"""What is read from the configurations, with the values of the published models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dgx_music.errors import FailedPrecondition
from generation_service.models.base import Capability
from generation_service.models.diffusion.pipeline_families import FAMILIES, Configs, PipelineFacts

STABLE_AUDIO: dict[str, dict[str, Any]] = {
    "vae": {
        "sampling_rate": 44100,
        "audio_channels": 2,
        "downsampling_ratios": [2, 4, 4, 8, 8],
        "decoder_input_channels": 64,
    },
    "transformer": {"in_channels": 64, "num_layers": 24, "sample_size": 1024},
    "text_encoder": {"d_model": 768},
    "projection_model": {"text_encoder_dim": 768, "max_value": 512},
}
ACE_STEP: dict[str, dict[str, Any]] = {
    "vae": {
        "sampling_rate": 48000,
        "audio_channels": 2,
        "downsampling_ratios": [2, 4, 4, 6, 10],
        "decoder_input_channels": 64,
    },
    "transformer": {"audio_acoustic_hidden_dim": 64, "num_hidden_layers": 24, "is_turbo": True},
    "text_encoder": {"hidden_size": 1024},
    "condition_encoder": {"text_hidden_dim": 1024},
}


def read(pipeline: str, configs: dict[str, dict[str, Any]]) -> PipelineFacts:
    return FAMILIES[pipeline].read(Configs(Path("model"), configs))


def test_stable_audio_open_has_47_seconds_at_44100_hz() -> None:
    facts = read("StableAudioPipeline", STABLE_AUDIO)
    assert (facts.sample_rate_hz, facts.channels, facts.hop_frames) == (44100, 2, 2048)
    assert facts.max_duration_seconds == 47.55
    assert facts.capabilities == {Capability.STEPS, Capability.NEGATIVE_PROMPT}


def test_ace_step_has_ten_minutes_at_48000_hz() -> None:
    facts = read("AceStepPipeline", ACE_STEP)
    assert (facts.sample_rate_hz, facts.channels, facts.hop_frames) == (48000, 2, 1920)
    assert (facts.max_duration_seconds, facts.default_steps) == (600.0, 8)
    assert facts.capabilities == {Capability.STEPS, Capability.LYRICS}


@pytest.mark.parametrize(
    ("part", "key", "value", "problem"),
    [
        ("vae", "sampling_rate", 44100.5, "sampling_rate must be an integer from 8000 to 192000, not 44100.5"),
        ("vae", "audio_channels", 3, "audio_channels must be an integer from 1 to 2, not 3"),
        ("vae", "downsampling_ratios", [2, 3], r"downsampling_ratios must be even, not \[2, 3\]"),
        ("vae", "downsampling_ratios", "many", "downsampling_ratios must be a list of integers, not 'many'"),
        ("vae", "downsampling_ratios", [2, True], "downsampling_ratios must have integers from 2 to 64"),
        ("vae", "decoder_input_channels", 32, "in_channels is 64, but decoder_input_channels of vae is 32"),
        ("transformer", "num_layers", 10**9, "num_layers must be an integer from 1 to 512, not 1000000000"),
        ("transformer", "sample_size", None, "sample_size must be an integer from 1 to 65536, not None"),
        ("text_encoder", "d_model", 512, "text_encoder_dim is 768, but d_model of text_encoder is 512"),
    ],
)
def test_a_setting_that_can_not_be_is_named(part: str, key: str, value: object, problem: str) -> None:
    configs = STABLE_AUDIO | {part: STABLE_AUDIO[part] | {key: value}}
    with pytest.raises(FailedPrecondition, match=f"config.json: {problem}") as caught:
        read("StableAudioPipeline", configs)
    assert caught.value.reason == "CHECKPOINT_INVALID"
