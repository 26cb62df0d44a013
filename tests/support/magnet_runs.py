"""Runs requests on tiny MAGNeT models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dgx_music.errors import ServiceError
from generation_service.models.base import FloatArray, GenerationParameters
from generation_service.models.magnet.magnet_loader import FoundMagnet, find_magnet
from generation_service.models.magnet.magnet_model import Magnet, MagnetState
from generation_service.models.musicgen.checkpoints.checkpoint_reader import read_checkpoint


def find(folder: Path, **options: Any) -> FoundMagnet:
    return find_magnet(read_checkpoint(folder), name=folder.name, **options)


def run(model: Magnet, requests: Sequence[tuple[GenerationParameters, int]]) -> list[tuple[MagnetState, FloatArray]]:
    """Runs requests in one batch, each of which joins at its step; returns the final state and the samples of each."""
    states: dict[int, MagnetState] = {}
    blocks: list[list[FloatArray]] = [[] for _ in requests]
    for step in range(1000):
        for index, (parameters, joins_at) in enumerate(requests):
            if joins_at == step:
                states[index] = model.prefill(parameters)
        active = [i for i in states if sum(map(len, blocks[i])) < states[i].frames]
        if not active and len(states) == len(requests):
            break
        for i, block in zip(active, model.step([states[i] for i in active]), strict=True):
            if isinstance(block, ServiceError):
                raise block
            blocks[i].append(block)
    for state in states.values():
        model.release(state)
    return [(states[i], np.concatenate(own)) for i, own in enumerate(blocks)]
