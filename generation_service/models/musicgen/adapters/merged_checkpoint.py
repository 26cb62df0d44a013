"""A checkpoint whose weights have adapters merged into them: W + scale · B A."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from generation_service.models.musicgen.adapters.adapter_file import (
    AdapterFile,
    LowRank,
    adapter_digest,
    load_adapter,
)
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint

ScaledModules = Mapping[str, Sequence[tuple[LowRank, float]]]
"""Name of a weight → what is added to its rows, and how strongly."""


def merge_adapters(checkpoint: Checkpoint, adapters: Sequence[tuple[AdapterFile, float]]) -> Checkpoint:
    """Returns a checkpoint that adds adapters, each with its scale, to the tensors when they are read, in fp32.

    The adapters fit the checkpoint. Raises FailedPrecondition if one has values that are not finite.
    """
    modules: dict[str, list[tuple[LowRank, float]]] = {}
    digest = hashlib.blake2b(checkpoint.digest.encode(), digest_size=8)
    for file, scale in adapters:
        digest.update(f" {adapter_digest(file.folder)}:{scale!r}".encode())
        for module in load_adapter(file):
            modules.setdefault(module.target.weight, []).append((module, scale))
    return replace(
        checkpoint,
        map_tensors=lambda: _MergedTensors(checkpoint.map_tensors(), modules),
        digest=digest.hexdigest(),
    )


class _MergedTensors(Mapping[str, Tensor]):
    def __init__(self, tensors: Mapping[str, Tensor], modules: ScaledModules) -> None:
        self._tensors = tensors
        self._modules = modules

    def __getitem__(self, name: str) -> Tensor:
        tensor, modules = self._tensors[name], self._modules.get(name)
        if modules is None:
            return tensor
        merged = tensor.to(torch.float32, copy=True)
        for module, scale in modules:
            rows, delta = module.target.first_row, module.delta()
            merged[rows : rows + len(delta)] += scale * delta
        return merged

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)
