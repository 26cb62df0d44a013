"""Configurations of language models for tests that need no checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generation_service.models.musicgen.checkpoints.config import LmConfig

SMALL = LmConfig(
    dim=1024,
    num_heads=16,
    num_layers=24,
    hidden_dim=4096,
    n_q=4,
    card=2048,
    delays=(0, 1, 2, 3),
    max_period=10_000,
    positional_scale=1,
    t5_name="t5-base",
    condition="description",
    channels=1,
    sample_rate_hz=32_000,
    max_duration_seconds=30,
)
"""musicgen-small."""


def lm_config(dim: int, layers: int, **changes: Any) -> LmConfig:
    """musicgen-small with another width and number of layers."""
    return replace(SMALL, dim=dim, num_layers=layers, hidden_dim=4 * dim, **changes)
