"""MusicGen's language model: a decoder-only transformer over K codebooks that runs one decode step for many requests.

Source: audiocraft 1.3.0, `models/lm.py` and `modules/transformer.py` (Copet et al. 2023). The differences concern only
speed: the keys and values of the text are projected once per request instead of at every step; in fp32 on the CPU, a
short text also absorbs the projections around its cross-attention; and the unconditional row skips cross-attention,
which for it is exactly zero (no bias, all-zero condition).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.absorbed_cross_attention import AbsorbedCrossAttention, max_absorbed_tokens
from generation_service.models.musicgen.lm.decoder_layers import DecoderLayer, read_decoder, sinusoidal_embeddings
from generation_service.models.musicgen.lm.kv_cache import CFG_ROWS, KvCache
from generation_service.models.musicgen.lm.linear import PackedLinear, Precision, build_linear


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
        weights = read_decoder(checkpoint, config, self.device, lambda weight: build_linear(weight, precision))
        self._layers = weights.layers
        self._embedding, self._offsets = weights.embedding, weights.offsets
        self._out_norm, self._heads = weights.out_norm, weights.heads
        self._positions = sinusoidal_embeddings(0, config).to(self.device)
        # In int8, Wq and Wo are as small as the products that would replace them.
        self.max_absorbed_tokens = (
            max_absorbed_tokens(config) if isinstance(self._layers[0].cross_q, PackedLinear) else 0
        )
        """A text of at most this many tokens is absorbed."""

    @torch.inference_mode()
    def condition(self, cache: KvCache, text: Tensor | None) -> None:
        """Projects the prompt's keys and values for all layers, or absorbs them. text: [T, dim], or None."""
        if text is None:
            return
        shape = (len(text), 2, self.config.num_heads, self.config.head_dim)
        projected = (layer.cross_kv(text).view(shape).permute(1, 2, 0, 3).unsqueeze(1) for layer in self._layers)
        if len(text) <= self.max_absorbed_tokens:
            cache.absorbed = [_absorb(cross, layer) for cross, layer in zip(projected, self._layers, strict=True)]
        else:
            cache.cross = [cross.contiguous() for cross in projected]

    @torch.inference_mode()
    def step(self, codes: Tensor, caches: Sequence[KvCache]) -> Tensor:
        """Runs one decode step. codes: int64 [B, K], the newest of each request → logits: [B, 2, K, card].

        The logits are conditional and unconditional. Every cache grows by one position.
        """
        batch = len(caches)
        positions = torch.tensor([cache.position for cache in caches])
        self._extend_positions(max(cache.position for cache in caches))
        x = F.embedding_bag(codes + self._offsets, self._embedding, mode="sum")  # [B, dim]
        x = x + self._positions[positions]
        x = x.repeat_interleave(CFG_ROWS, 0)  # [2 B, dim]: the two rows of a request are adjacent
        for cache in caches:
            cache.begin_step()
        for index, layer in enumerate(self._layers):
            x = layer.out.add_residual(self._self_attend(layer.qkv(layer.norm_self(x)), index, caches), x)
            self._add_cross_attention(x[0::CFG_ROWS], layer, index, caches)
            x = layer.down.add_residual(layer.up.gelu(layer.norm_ff(x)), x)
        for cache in caches:
            cache.position += 1
        return self._heads(self._out_norm(x)).view(batch, CFG_ROWS, self.config.n_q, self.config.card)

    @torch.inference_mode()
    def prefill(self, codes: Tensor, cache: KvCache) -> None:
        """Reads known codes, int64 [K, n], in one pass. The cache grows by n positions.

        It writes what n steps would write, except for rounding: 1e-5 in fp32; in int8, a value may be quantised to the
        neighbouring level. It computes no logits, so the newest codes are left to `step`.
        """
        count, start = codes.shape[1], cache.position
        end = start + count
        self._extend_positions(end)
        x = F.embedding_bag(codes.t() + self._offsets, self._embedding, mode="sum")  # [n, dim]
        x = x + self._positions[start:end]
        x = x.repeat(CFG_ROWS, 1)  # [2 n, dim]: all conditional rows, then all unconditional ones
        mask = torch.ones(count, end, dtype=torch.bool, device=self.device).tril(start)
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.norm_self(x)).view(CFG_ROWS, count, 3, self.config.num_heads, -1)
            queries, keys, values = qkv.permute(2, 0, 3, 1, 4)  # each [2, H, n, D]
            cache.append(index, keys, values)
            if index == self.config.num_layers - 1:
                break  # The rest of the last layer is needed only for logits.
            cached = cache.view(index, end)
            attended = F.scaled_dot_product_attention(queries, cached[0], cached[1], mask)  # [2, H, n, D]
            x = layer.out.add_residual(attended.transpose(1, 2).reshape(-1, self.config.dim), x)
            if cache.absorbed is not None:
                x[:count] += cache.absorbed[index].attend_all(layer.norm_cross(x[:count]))
            elif cache.cross is not None:
                x[:count] += self._cross_attend(x[:count], layer, cache.cross[index])
            x = layer.down.add_residual(layer.up.gelu(layer.norm_ff(x)), x)
        cache.position = end

    def _cross_attend(self, rows: Tensor, layer: DecoderLayer, cross: Tensor) -> Tensor:
        """rows: [n, dim], conditional rows of one request → the output to add to them, [n, dim]."""
        queries = layer.cross_q(layer.norm_cross(rows)).view(1, len(rows), self.config.num_heads, -1).transpose(1, 2)
        attended = F.scaled_dot_product_attention(queries, cross[0], cross[1])  # [1, H, n, D]
        return layer.cross_out(attended.transpose(1, 2).reshape(-1, self.config.dim))

    def _self_attend(self, qkv: Tensor, index: int, caches: Sequence[KvCache]) -> Tensor:
        """qkv: [2 B, 3 dim] → [2 B, dim]."""
        config = self.config
        parts = qkv.view(len(caches), CFG_ROWS, 3, config.num_heads, config.head_dim).unbind(2)  # each [B, 2, H, D]
        requests = zip(*(part.unbind(0) for part in parts), strict=True)
        results = [cache.attend(index, *part) for cache, part in zip(caches, requests, strict=True)]  # each [2 H, D]
        return (torch.cat(results) if len(results) > 1 else results[0]).view(-1, config.dim)

    def _add_cross_attention(self, rows: Tensor, layer: DecoderLayer, index: int, caches: Sequence[KvCache]) -> None:
        """Adds cross-attention to those of the conditional rows, [B, dim], that have a prompt. In place."""
        config = self.config
        normed = layer.norm_cross(rows)
        projected = []
        for i, cache in enumerate(caches):
            if cache.absorbed is not None:
                rows[i].add_(cache.absorbed[index].attend(normed[i]))
            elif cache.cross is not None:
                projected.append((i, cache.cross[index]))
        if not projected:
            return
        selected = slice(None) if len(projected) == len(caches) else torch.tensor([i for i, _ in projected])
        queries = layer.cross_q(normed[selected]).view(-1, 1, config.num_heads, 1, config.head_dim)
        results = [
            F.scaled_dot_product_attention(query, *cross)  # [1, H, 1, D]
            for query, (_, cross) in zip(queries, projected, strict=True)
        ]
        rows[selected] = layer.cross_out.add_residual(torch.cat(results).view(-1, config.dim), rows[selected])

    def _extend_positions(self, position: int) -> None:
        if position >= len(self._positions):
            count = max(position + 1, 2 * len(self._positions))
            self._positions = sinusoidal_embeddings(count, self.config).to(self.device)


def _absorb(cross: Tensor, layer: DecoderLayer) -> AbsorbedCrossAttention:
    assert isinstance(layer.cross_q, PackedLinear)
    assert isinstance(layer.cross_out, PackedLinear)
    return AbsorbedCrossAttention.from_projection(cross, layer.cross_q.weight, layer.cross_out.weight)
