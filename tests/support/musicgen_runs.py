"""Tiny models whose window is 60 frames of codes instead of 1500."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.musicgen.loader import find_musicgen, load_musicgen
from generation_service.models.musicgen.model import MusicGen, MusicGenState
from tests.support.golden_codes import FRAME_RATE_HZ, HOP, WINDOW


def load(folder: Path) -> MusicGen:
    found = find_musicgen(folder)
    return load_musicgen(replace(found, config=replace(found.config, max_duration_seconds=WINDOW / FRAME_RATE_HZ)))


def greedy(prompt: str, new: int, clip: FloatArray | None = None) -> GenerationParameters:
    return GenerationParameters(prompt, new * HOP, seed=0, temperature=0, prompt_audio=clip)


def run(model: MusicGen, plans: Sequence[tuple[GenerationParameters, int]]) -> list[tuple[MusicGenState, FloatArray]]:
    """Together, each from the step that its plan says; every state with its samples, when all are done."""
    states: dict[int, MusicGenState] = {}
    made: list[list[FloatArray]] = [[] for _ in plans]
    for now in range(10_000):
        for index, (asked, joins) in enumerate(plans):
            if joins == now:
                states[index] = model.prefill(asked)
        going = [i for i in states if sum(map(len, made[i])) < states[i].frames]
        if not going and len(states) == len(plans):
            break
        for i, block in zip(going, model.step([states[i] for i in going]), strict=True):
            made[i].append(block)
    for state in states.values():
        model.release(state)
    assert model.memory.reserved_bytes == 0
    return [(states[i], np.concatenate(blocks)) for i, blocks in enumerate(made)]
