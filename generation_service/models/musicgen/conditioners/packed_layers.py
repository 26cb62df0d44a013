"""Replaces the linear layers of an encoder on the CPU by those that are fast for the few rows of a prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from generation_service.models.musicgen.lm.linear import build_linear


class PackedLayer(torch.nn.Module):
    """A linear layer without bias, in fp32. For 12 rows, it takes a third of the time of `torch.nn.Linear`."""

    weight = None
    """transformers looks at the type of some layers' weights, if they are tensors."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        super().__init__()
        self._linear = build_linear(layer.weight.detach(), "fp32")

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] → [..., out]."""
        return self._linear(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


def pack_layers(module: torch.nn.Module) -> None:
    """Replaces all linear layers without bias in `module`, and copies its other weights.

    So no weight is mapped from a file any more, which would keep the whole file in memory.
    """
    for name, child in module.named_children():
        if isinstance(child, torch.nn.Linear) and child.bias is None:
            setattr(module, name, PackedLayer(child))
        else:
            pack_layers(child)
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.clone()
