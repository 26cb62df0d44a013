"""Tiny models whose window is 60 frames of codes instead of 1500, and audiocraft with the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="MusicGen needs torch")

import torch
from torch import Tensor

from generation_service.model import FloatArray, GenerationParameters
from generation_service.musicgen.loading import find_musicgen, load_musicgen
from generation_service.musicgen.musicgen import MusicGen, MusicGenState

HOP = 640
RATE = 50
"""Frames of codes a second."""
WINDOW = 60
STRIDE = 36


def load(folder: Path) -> MusicGen:
    found = find_musicgen(folder)
    return load_musicgen(replace(found, config=replace(found.config, max_duration_seconds=WINDOW / RATE)))


class Reference:
    """audiocraft's MusicGen, greedy."""

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("audiocraft", reason="the reference is audiocraft; make setup-audiocraft")
        from audiocraft.models import MusicGen as Reference
        from audiocraft.models import loaders

        with pytest.warns(FutureWarning, match="weight_norm"):
            codec = loaders.load_compression_model(str(folder))
        self._musicgen: Any = Reference("tiny", codec, loaders.load_lm_model(str(folder)))
        self._musicgen.max_duration = WINDOW / RATE  # To be given only after its default stride has been checked.

    def codes(self, prompt: str, frames: int, clip: FloatArray | None = None) -> Tensor:
        """[K, frames], the clip's first. clip: [n, channels]."""
        seconds = (frames + 0.5) / RATE  # It rounds down.
        self._musicgen.set_generation_params(use_sampling=False, duration=seconds, extend_stride=STRIDE / RATE)
        if clip is None:
            codes: Tensor = self._musicgen.generate([prompt], return_tokens=True)[1]
        else:
            audio = torch.from_numpy(clip.T.copy())[None]
            codes = self._musicgen.generate_continuation(audio, 32_000, [prompt], return_tokens=True)[1]
        return codes[0]


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
