"""MusicGen's language model: a decoder-only transformer over K codebooks that runs one decode step for many requests.

Source: audiocraft 1.3.0, `models/lm.py` and `modules/transformer.py` (Copet et al. 2023). The differences concern only
speed: the keys and values of the text are projected once per request instead of at every step, and the unconditional
row skips cross-attention, which for it is exactly zero (no bias, all-zero condition).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint, invalid_checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.kv_cache import CFG_ROWS, KvCache
from generation_service.models.musicgen.lm.linear import Linear, Precision, build_linear

_NORM_EPSILON = 1e-5


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, _NORM_EPSILON)


@dataclass(frozen=True, slots=True)
class _Layer:
    norm_self: _Norm
    qkv: Linear
    out: Linear
    norm_cross: _Norm
    cross_q: Linear
    cross_kv: Linear
    cross_out: Linear
    norm_ff: _Norm
    up: Linear
    down: Linear


class LanguageModel:
    """The weights are fixed when the model is loaded. All state of a request is in its `KvCache`."""

    max_prefill_positions = 64
    """Upper limit for one `prefill`. The other requests wait for it, about as long as for a few steps."""

    def __init__(
        self, checkpoint: Checkpoint, config: LmConfig, precision: Precision, device: torch.device | str = "cpu"
    ) -> None:
        """Raises FailedPrecondition if weights are missing or do not have the shape that the configuration gives."""
        self.config = config
        self.device = torch.device(device)
        self._layers = [
            _build_layer(_WeightReader(checkpoint, self.device), f"transformer.layers.{i}.", config, precision)
            for i in range(config.num_layers)
        ]
        weights = _WeightReader(checkpoint, self.device)
        dim, card = config.dim, config.card
        # [K (card + 1), dim]: one table for all codebooks.
        self._embedding = torch.cat([weights(f"emb.{k}.weight", card + 1, dim) for k in range(config.n_q)])
        self._offsets = torch.arange(config.n_q, device=self.device) * (card + 1)
        self._out_norm = weights.norm("out_norm", dim)
        heads = torch.cat([weights(f"linears.{k}.weight", card, dim) for k in range(config.n_q)])
        self._heads = build_linear(heads, precision)
        self._positions = _sinusoidal_embeddings(0, config).to(self.device)

    @torch.inference_mode()
    def condition(self, cache: KvCache, text: Tensor | None) -> None:
        """Projects the prompt's keys and values for all layers. text: [T, dim], or None."""
        if text is None:
            return
        shape = (len(text), 2, self.config.num_heads, self.config.head_dim)
        for index, layer in enumerate(self._layers):
            cache.set_prompt(index, *layer.cross_kv(text).view(shape).unbind(1))

    @torch.inference_mode()
    def step(self, codes: Tensor, caches: Sequence[KvCache]) -> Tensor:
        """Runs one decode step. codes: int64 [B, K], the newest of each request → logits: [B, 2, K, card].

        The logits are conditional and unconditional. Every cache grows by one position. All caches are of one pool.
        """
        batch, pool, config = len(caches), caches[0].pool, self.config
        plan = pool.plan_step(caches)
        positions = [cache.position for cache in caches]
        self._extend_positions(max(positions))
        x = F.embedding_bag(codes + self._offsets, self._embedding, mode="sum")  # [B, dim]
        x = (x + self._positions[positions]).repeat(CFG_ROWS, 1)  # [2 B, dim]: all conditional, then all others
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.norm_self(x)).view(len(x), 3, config.num_heads, config.head_dim)
            pool.blocks.write(index, plan.write_blocks, plan.write_within, qkv[:, 1], qkv[:, 2])
            x = layer.out.add_residual(pool.blocks.attend(index, qkv, plan.reads, plan.mask), x)
            if plan.prompt_reads is not None:
                rows = x[:batch]
                queries = layer.cross_q(layer.norm_cross(rows))
                attended = pool.prompt_blocks.attend(index, queries, plan.prompt_reads, plan.prompt_mask)
                rows.copy_(layer.cross_out.add_residual(attended, rows))
            x = layer.down.add_residual(layer.up.gelu(layer.norm_ff(x)), x)
        for cache in caches:
            cache.position += 1
        logits = self._heads(self._out_norm(x)).view(CFG_ROWS, batch, config.n_q, config.card)
        return logits.transpose(0, 1)

    @torch.inference_mode()
    def prefill(self, codes: Tensor, cache: KvCache) -> None:
        """Reads known codes, int64 [K, n], in one pass. The cache grows by n positions.

        It writes what n steps would write, except for rounding: 1e-5 in fp32; in int8, a value may be quantised to the
        neighbouring level. It computes no logits, so the newest codes are left to `step`.
        """
        config, count, start = self.config, codes.shape[1], cache.position
        end = start + count
        self._extend_positions(end)
        x = F.embedding_bag(codes.t() + self._offsets, self._embedding, mode="sum")  # [n, dim]
        x = (x + self._positions[start:end]).repeat(CFG_ROWS, 1)  # [2 n, dim]: all conditional, then all others
        mask = torch.ones(count, end, dtype=torch.bool).tril(start)
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.norm_self(x)).view(CFG_ROWS, count, 3, config.num_heads, config.head_dim)
            queries, keys, values = qkv.unbind(2)  # each [2, n, H, D]
            cache.append(index, keys, values)
            if index == config.num_layers - 1:
                break  # The rest of the last layer is needed only for logits.
            attended = F.scaled_dot_product_attention(queries.transpose(1, 2), *cache.view(index, end), mask)
            x = layer.out.add_residual(attended.transpose(1, 2).reshape(-1, config.dim), x)
            if cache.prompt_tokens:
                rows = x[:count]
                queries = layer.cross_q(layer.norm_cross(rows)).view(count, config.num_heads, -1).transpose(0, 1)
                attended = F.scaled_dot_product_attention(queries, *cache.view_prompt(index))  # [H, n, D]
                rows.copy_(layer.cross_out.add_residual(attended.transpose(0, 1).reshape(-1, config.dim), rows))
            x = layer.down.add_residual(layer.up.gelu(layer.norm_ff(x)), x)
        cache.position = end

    def _extend_positions(self, position: int) -> None:
        if position >= len(self._positions):
            count = max(position + 1, 2 * len(self._positions))
            self._positions = _sinusoidal_embeddings(count, self.config).to(self.device)


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

    def norm(self, name: str, dim: int) -> _Norm:
        return _Norm(self(f"{name}.weight", dim).clone(), self(f"{name}.bias", dim).clone())


def _build_layer(weights: _WeightReader, prefix: str, config: LmConfig, precision: Precision) -> _Layer:
    dim, hidden = config.dim, config.hidden_dim
    # Queries are projected with the scale of attention.
    scale = torch.ones(3 * dim, 1)
    scale[:dim] = config.head_dim**-0.5
    cross = weights(f"{prefix}cross_attention.in_proj_weight", 3 * dim, dim) * scale
    qkv = weights(f"{prefix}self_attn.in_proj_weight", 3 * dim, dim) * scale

    def linear(name: str, outputs: int, inputs: int) -> Linear:
        return build_linear(weights(f"{prefix}{name}", outputs, inputs), precision)

    return _Layer(
        norm_self=weights.norm(f"{prefix}norm1", dim),
        qkv=build_linear(qkv, precision),
        out=linear("self_attn.out_proj.weight", dim, dim),
        norm_cross=weights.norm(f"{prefix}norm_cross", dim),
        cross_q=build_linear(cross[:dim], precision),
        cross_kv=build_linear(cross[dim:], precision),
        cross_out=linear("cross_attention.out_proj.weight", dim, dim),
        norm_ff=weights.norm(f"{prefix}norm2", dim),
        up=linear("linear1.weight", hidden, dim),
        down=linear("linear2.weight", dim, hidden),
    )


def _sinusoidal_embeddings(count: int, config: LmConfig) -> Tensor:
    """The scaled position embeddings, [count, dim]: audiocraft's `create_sin_embedding`, cosines first, then sines."""
    half = config.dim // 2
    positions = torch.arange(count).view(-1, 1).float()
    phase = positions / (torch.tensor(config.max_period) ** (torch.arange(half).float() / (half - 1)))
    return config.positional_scale * torch.cat([phase.cos(), phase.sin()], dim=-1)
