"""Writes AudioGen and MAGNeT checkpoints in audiocraft's real format, tiny and with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tests.support.checkpoints import TINY, lm_config_dump, lm_weights, save_lm_package, write_t5
from tests.support.compression_checkpoints import TINY_CODEC, write_compression_checkpoint

T5_LARGE, T5_LARGE_DIM = "t5-large", 1024
"""The text encoder of AudioGen and of the MAGNeT models for sounds."""
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
