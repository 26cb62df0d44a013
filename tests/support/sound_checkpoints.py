"""Writes AudioGen and MAGNeT checkpoints in audiocraft's real format, tiny and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.support.checkpoints import T5_DIM, TINY, lm_config_dump, lm_weights, save_lm_package, write_t5
from tests.support.compression_checkpoints import TINY_CODEC, write_compression_checkpoint

T5_LARGE, T5_LARGE_DIM = "t5-large", 1024
"""The text encoder of AudioGen and of the MAGNeT models for sounds."""
SEGMENT_SECONDS = 1
"""Of the MAGNeT models, instead of 10 or 30: 50 frames of codes, 48 in whole spans."""
STEPS = [6, 4, 3, 3]
"""Their iterations, instead of 20, 10, 10, 10."""
CODEC_16_KHZ = replace(TINY_CODEC, ratios=(8, 5, 4, 2), sample_rate_hz=16_000)
"""The hop and the rate of the codec for sounds, which has 50 frames of codes per second as the one for music has."""


def write_t5_large(hf_home: Path) -> None:
    write_t5(hf_home, name=T5_LARGE, dim=T5_LARGE_DIM)


def write_audiogen(folder: Path, *, seed: int = 0) -> None:
    """Like the repository `facebook/audiogen-medium`."""
    config = lm_config_dump(TINY, stereo=False)
    _make_sound(config)
    config["solver"] = "audiogen"
    _write(folder, config, seed, T5_LARGE_DIM)
    write_compression_checkpoint(folder, CODEC_16_KHZ, seed=seed)


def write_magnet(
    folder: Path,
    *,
    is_sound: bool = False,
    seed: int = 0,
    change: Callable[[dict[str, Any]], object] = lambda config: None,
) -> None:
    """Like the repository `facebook/magnet-small-10secs`, or for sounds like `facebook/audio-magnet-small`, but with
    segments of one second, and with a configuration that `change` has modified in place."""
    config = lm_config_dump(TINY, stereo=False)
    if is_sound:
        _make_sound(config)
    config["solver"] = "audio_magnet" if is_sound else "magnet"
    config["lm_model"] = "transformer_lm_magnet"
    config["dataset"]["segment_duration"] = SEGMENT_SECONDS
    config["transformer_lm"] |= {
        "causal": False,
        "subcodes_context": 5,
        "compression_model_framerate": 50,
        "segment_duration": 0,
        "span_len": -1,
    }
    config["codebooks_pattern"] = {"modeling": "parallel", "parallel": {"empty_initial": -1}}
    config["masking"] = {"span_len": 3}
    config["generate"] = {
        "lm": {
            "use_sampling": True,
            "temp": 3.5 if is_sound else 3.0,
            "top_k": 0,
            "top_p": 0.8 if is_sound else 0.9,
            "max_cfg_coef": 20.0 if is_sound else 10.0,
            "min_cfg_coef": 1.0,
            "decoding_steps": STEPS,
            "anneal_temp": True,
            "span_scoring": "max",
            "span_arrangement": "nonoverlap",
        }
    }
    change(config)
    _write(folder, config, seed, T5_LARGE_DIM if is_sound else T5_DIM)
    write_compression_checkpoint(folder, CODEC_16_KHZ if is_sound else TINY_CODEC, seed=seed)


def _make_sound(config: dict[str, Any]) -> None:
    config["sample_rate"] = 16_000
    config["dataset"]["segment_duration"] = 10
    config["conditioners"]["description"]["t5"]["name"] = T5_LARGE
    config["attribute_dropout"] = {}


def _write(folder: Path, config: dict[str, Any], seed: int, t5_dim: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    weights = lm_weights(TINY, 4, seed, t5_dim)
    save_lm_package(
        folder, {"best_state": weights, "xp.cfg": yaml.safe_dump(config), "version": "1.3.0", "exported": True}
    )
