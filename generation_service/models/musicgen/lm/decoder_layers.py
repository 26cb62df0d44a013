"""The weights of the language model's transformer, read from a checkpoint for any implementation of linear layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from generation_service.models.musicgen.adapters.adapter_targets import HEADS, layer_linear
from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.layer_norm import LayerNorm
from generation_service.models.musicgen.lm.linear import Linear

_MISSING: Any = None

BuildLinear = Callable[[Tensor], Linear]
"""Builds a linear layer from its weights in fp32, [out, in], on the device."""


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    """One layer of the transformer."""

    norm_self: LayerNorm
    qkv: Linear
    out: Linear
    norm_cross: LayerNorm
    cross_q: Linear
    cross_kv: Linear
    cross_out: Linear
    norm_ff: LayerNorm
    up: Linear
    down: Linear
    has_cross_attention: bool = True
    """If not, its parts are missing, and must not be used."""


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """All weights of the language model."""

    layers: list[DecoderLayer]
    embedding: Tensor
    """[K (card + 1), dim]: one table for all codebooks."""
    offsets: Tensor
    """int64 [K], where each codebook begins in `embedding`."""
    out_norm: LayerNorm
    heads: Linear
    """The heads of all codebooks: [K card, dim]."""


def read_decoder(
    checkpoint: Checkpoint, config: LmConfig, device: torch.device, build_linear: BuildLinear
) -> DecoderWeights:
    """Raises FailedPrecondition if weights are missing or do not have the shape that the configuration gives."""
    layers = [
        _read_layer(_WeightReader(checkpoint, device), f"transformer.layers.{i}.", config, build_linear)
        for i in range(config.num_layers)
    ]
    weights = _WeightReader(checkpoint, device)
    dim, card = config.dim, config.card
    return DecoderWeights(
        layers=layers,
        embedding=torch.cat([weights(f"emb.{k}.weight", card + 1, dim) for k in range(config.n_q)]),
        offsets=torch.arange(config.n_q, device=device) * (card + 1),
        out_norm=weights.norm("out_norm", dim),
        heads=build_linear(torch.cat([weights(f"linears.{k}.weight", card, dim) for k in range(config.n_q)])),
    )


def map_linears(weights: DecoderWeights, change: Callable[[Linear, str], Linear]) -> DecoderWeights:
    """The same weights with what `change` makes of each linear layer, given with its name in an adapter."""
    layers = []
    for index, layer in enumerate(weights.layers):

        def changed(name: str, layer: DecoderLayer = layer, index: int = index) -> Linear:
            return change(getattr(layer, name), layer_linear(index, name))

        layers.append(
            replace(
                layer,
                qkv=changed("qkv"),
                out=changed("out"),
                cross_q=changed("cross_q"),
                cross_kv=changed("cross_kv"),
                cross_out=changed("cross_out"),
                up=changed("up"),
                down=changed("down"),
            )
        )
    return replace(weights, layers=layers, heads=change(weights.heads, HEADS))


def sinusoidal_embeddings(count: int, config: LmConfig) -> Tensor:
    """The scaled position embeddings, [count, dim]: audiocraft's `create_sin_embedding`, cosines first, then sines."""
    half = config.dim // 2
    positions = torch.arange(count).view(-1, 1).float()
    phase = positions / (torch.tensor(config.max_period) ** (torch.arange(half).float() / (half - 1)))
    return config.positional_scale * torch.cat([phase.cos(), phase.sin()], dim=-1)


class _WeightReader:
    """Reads tensors from a checkpoint by name, in fp32, and rejects those that are missing or have the wrong shape.

    The tensors may be mapped from the file. Use one reader per layer: its pages leave memory with it.
    """

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self._path = checkpoint.path
        self._state = checkpoint.map_tensors()
        self._device = device

    def __call__(self, name: str, *shape: int) -> Tensor:
        tensor = self._state.get(name)
        if tensor is None:
            raise invalid_checkpoint(self._path, f"best_state has no {name}; expected a MusicGen language model")
        if tuple(tensor.shape) != shape:
            problem = f"{name} has the shape {list(tensor.shape)}; xp.cfg expects {list(shape)}"
            raise invalid_checkpoint(self._path, problem)
        return tensor.to(self._device, torch.float32)

    def norm(self, name: str, dim: int) -> LayerNorm:
        return LayerNorm(self(f"{name}.weight", dim).clone(), self(f"{name}.bias", dim).clone())


def _read_layer(weights: _WeightReader, prefix: str, config: LmConfig, build_linear: BuildLinear) -> DecoderLayer:
    dim, hidden = config.dim, config.hidden_dim
    norm_cross, cross_q, cross_kv, cross_out = _MISSING, _MISSING, _MISSING, _MISSING
    if config.has_cross_attention:
        cross = weights(f"{prefix}cross_attention.in_proj_weight", 3 * dim, dim)
        norm_cross = weights.norm(f"{prefix}norm_cross", dim)
        cross_q, cross_kv = build_linear(cross[:dim]), build_linear(cross[dim:])
        cross_out = build_linear(weights(f"{prefix}cross_attention.out_proj.weight", dim, dim))
    return DecoderLayer(
        norm_self=weights.norm(f"{prefix}norm1", dim),
        qkv=build_linear(weights(f"{prefix}self_attn.in_proj_weight", 3 * dim, dim)),
        out=build_linear(weights(f"{prefix}self_attn.out_proj.weight", dim, dim)),
        norm_cross=norm_cross,
        cross_q=cross_q,
        cross_kv=cross_kv,
        cross_out=cross_out,
        norm_ff=weights.norm(f"{prefix}norm2", dim),
        up=build_linear(weights(f"{prefix}linear1.weight", hidden, dim)),
        down=build_linear(weights(f"{prefix}linear2.weight", dim, hidden)),
        has_cross_attention=config.has_cross_attention,
    )
