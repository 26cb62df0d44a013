"""Tiny MusicGen models with windows of 60 instead of 1500 frames of codes, and a function that runs requests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

from dgx_music.errors import ServiceError
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.musicgen.loader import FoundModel, find_musicgen, load_musicgen, load_resident
from generation_service.models.musicgen.model import MusicGen, MusicGenState
from tests.support.generator_runs import LateEvent
from tests.support.golden_codes import FRAME_RATE_HZ, HOP, WINDOW

EACH_GENERATOR = pytest.mark.parametrize(
    ("folder", "generator"), [("mono", "eager"), ("stereo", "resident")], indirect=True, scope="module"
)
"""For what does not depend on the channels; the comparisons with golden codes run both models on both generators."""
PIECE = 8
"""Positions in a piece of a prefill of the resident generator, with short windows."""


def load_model(found: FoundModel, generator: str, **options: Any) -> MusicGen:
    """`generator` is "eager" or "resident", which is made for GPUs and here runs on the CPU. `options` are those of
    `load_musicgen` or `load_resident`."""
    return load_musicgen(found, **options) if generator == "eager" else load_resident(found, "cpu", **options)


def load_with_short_window(folder: Path, generator: str = "eager", **options: Any) -> MusicGen:
    if generator == "resident":
        # Smaller than on a GPU, so that the short windows have several pieces and lengths.
        options = {"prefill_positions": PIECE, "length_buckets": (32,), "copy_results": LateEvent, **options}
    found = find_musicgen(folder)
    found = replace(found, config=replace(found.config, max_duration_seconds=WINDOW / FRAME_RATE_HZ))
    return load_model(found, generator, **options)


def greedy(prompt: str, new: int, clip: FloatArray | None = None) -> GenerationParameters:
    """Parameters for `new` frames of codes with greedy decoding."""
    return GenerationParameters(prompt, new * HOP, seed=0, temperature=0, prompt_audio=clip)


def step_all(model: MusicGen, states: Sequence[MusicGenState]) -> list[FloatArray]:
    """One step that fails for none of the states."""
    blocks = []
    for block in model.step(states):
        if isinstance(block, ServiceError):
            raise block
        blocks.append(block)
    return blocks


def run(
    model: MusicGen, requests: Sequence[tuple[GenerationParameters, int]]
) -> list[tuple[MusicGenState, FloatArray]]:
    """Runs requests in one batch, each of which joins at its step; returns the final state and the samples of each."""
    states: dict[int, MusicGenState] = {}
    blocks: list[list[FloatArray]] = [[] for _ in requests]
    for step in range(10_000):
        for index, (parameters, joins_at) in enumerate(requests):
            if joins_at == step:
                states[index] = model.prefill(parameters)
        active = [i for i in states if sum(map(len, blocks[i])) < states[i].frames]
        if not active and len(states) == len(requests):
            break
        for i, block in zip(active, step_all(model, [states[i] for i in active]), strict=True):
            blocks[i].append(block)
    for state in states.values():
        model.release(state)
    assert model.memory.reserved_bytes == 0
    return [(states[i], np.concatenate(own)) for i, own in enumerate(blocks)]
