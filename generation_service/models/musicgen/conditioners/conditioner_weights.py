"""The weights of a conditioner, read from a checkpoint of the language model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, invalid_checkpoint


@dataclass(frozen=True, slots=True, eq=False)
class OutputProjection:
    """The last layer of a conditioner, which projects to the width of the language model: audiocraft's
    `output_proj`."""

    weight: Tensor
    """[dim, features]"""
    bias: Tensor
    """[dim]"""

    @torch.inference_mode()
    def __call__(self, features: Tensor) -> Tensor:
        """[..., features] → [..., dim], on the device of the weights."""
        return F.linear(features.to(self.weight.device), self.weight, self.bias)


class ConditionerWeights:
    """Reads the tensors of one conditioner, in fp32."""

    def __init__(self, checkpoint: Checkpoint, conditioner: str, device: str | torch.device) -> None:
        self._path = checkpoint.path
        self._prefix = f"condition_provider.conditioners.{conditioner}."
        self._state = checkpoint.map_tensors()
        self._device = device

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Raises FailedPrecondition if the tensor is missing or has another shape."""
        tensor = self._state.get(f"{self._prefix}{name}")
        if tensor is None:
            raise invalid_checkpoint(self._path, f"best_state has no {self._prefix}{name}")
        if tuple(tensor.shape) != shape:
            problem = f"{self._prefix}{name} has the shape {list(tensor.shape)}; expected {list(shape)}"
            raise invalid_checkpoint(self._path, problem)
        return tensor.to(self._device, torch.float32, copy=True)

    def projection(self, features: int, dim: int) -> OutputProjection:
        return OutputProjection(self("output_proj.weight", dim, features), self("output_proj.bias", dim))
