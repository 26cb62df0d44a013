"""MusicGen's language model: a decoder-only transformer over K codebooks that runs one decode step for many requests.

Source: audiocraft 1.3.0, `models/lm.py` and `modules/transformer.py` (Copet et al. 2023). The differences concern only
speed: the keys and values of the text are projected once per request instead of at every step, and the unconditional
row skips cross-attention, which for it is exactly zero (no bias, all-zero condition).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.adapted_linear import ActiveAdapters, adapt_linears
from generation_service.models.musicgen.lm.decoder_layers import read_decoder, sinusoidal_embeddings
from generation_service.models.musicgen.lm.kv_cache import KvCache
from generation_service.models.musicgen.lm.linear import Precision, build_linear
from generation_service.models.musicgen.sampling import CFG_ROWS


class LanguageModel:
    """The weights are fixed when the model is loaded. All state of a request is in its `KvCache`."""

    max_prefill_positions = 32
    """Upper limit for one `prefill`. The others wait for it, as long as for about three steps of a batch of 8."""

    def __init__(
        self, checkpoint: Checkpoint, config: LmConfig, precision: Precision, device: torch.device | str = "cpu"
    ) -> None:
        """Raises FailedPrecondition if weights are missing or do not have the shape that the configuration gives."""
        self.config = config
        self.device = torch.device(device)
        self._adapters = ActiveAdapters()
        weights = read_decoder(checkpoint, config, self.device, lambda weight: build_linear(weight, precision))
        weights = adapt_linears(weights, self._adapters)
        self._layers = weights.layers
        self._embedding, self._offsets = weights.embedding, weights.offsets
        self._out_norm, self._heads = weights.out_norm, weights.heads
        self._positions = sinusoidal_embeddings(0, config).to(self.device)

    @torch.inference_mode()
    def condition(self, cache: KvCache, text: Tensor | None) -> None:
        """Projects the prompt's keys and values for all layers. text: [T, dim], or None."""
        if text is None:
            return
        self._adapters.select([cache.adapters] * len(text))
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
        reads = plan.reads
        positions = [cache.position for cache in caches]
        self._extend_positions(max(positions))
        self._adapters.select([cache.adapters for cache in caches] * CFG_ROWS)
        x = self._embed(codes)  # [B, dim]
        x = (x + self._positions[positions]).repeat(CFG_ROWS, 1)  # [2 B, dim]: all conditional, then all others
        for index, layer in enumerate(self._layers):
            qkv = layer.qkv(layer.norm_self(x)).view(len(x), 3, config.num_heads, config.head_dim)
            pool.blocks.write(index, plan.write_blocks, plan.write_within, qkv[:, 1], qkv[:, 2])
            x = layer.out.add_residual(pool.blocks.attend(index, qkv, reads.blocks, plan.mask), x)
            if reads.prompts is not None:
                rows = x[:batch]
                queries = layer.cross_q(layer.norm_cross(rows)).view(batch, 1, config.num_heads, config.head_dim)
                attended = pool.prompt_blocks.attend(index, queries, reads.prompts, reads.prompt_mask)
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
        self._adapters.select([cache.adapters] * (CFG_ROWS * count))
        x = self._embed(codes.t())  # [n, dim]
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

    def _embed(self, codes: Tensor) -> Tensor:
        """int64 [n, K] → [n, dim]."""
        codes = codes + self._offsets
        return self._adapters.embed(codes, F.embedding_bag(codes, self._embedding, mode="sum"))

    def _extend_positions(self, position: int) -> None:
        if position >= len(self._positions):
            count = max(position + 1, 2 * len(self._positions))
            self._positions = sinusoidal_embeddings(count, self.config).to(self.device)
