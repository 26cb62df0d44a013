"""MusicGen's language model: a decoder-only transformer over K codebooks that runs one decode step for many requests.

Source: audiocraft 1.3.0, `models/lm.py` and `modules/transformer.py` (Copet et al. 2023). The differences concern only
speed: the keys and values of a text are projected once per request instead of at every step, and a row without a text
skips cross-attention, which for it is exactly zero (no bias, all-zero condition).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.conditions import WindowConditions
from generation_service.models.musicgen.lm.adapted_linear import ActiveAdapters, RowAdapters
from generation_service.models.musicgen.lm.decoder_layers import (
    DecoderWeights,
    map_linears,
    read_decoder,
    sinusoidal_embeddings,
)
from generation_service.models.musicgen.lm.kv_cache import BatchReads, KvCache
from generation_service.models.musicgen.lm.linear import Precision, build_linear


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
        self._plain = read_decoder(checkpoint, config, self.device, lambda weight: build_linear(weight, precision))
        self._adapted = map_linears(self._plain, self._adapters.adapt)
        self._embedding, self._offsets = self._plain.embedding, self._plain.offsets
        self._positions = sinusoidal_embeddings(0, config).to(self.device)

    @torch.inference_mode()
    def begin_window(self, cache: KvCache, conditions: WindowConditions) -> None:
        """Restarts at position 0, and projects the keys and values of the texts that are new for all layers."""
        cache.begin_window(len(conditions.branches))
        for row, condition in zip(cache.rows, conditions.all(), strict=True):
            if condition.text is not None and condition.text is not row.text:
                weights = self._select([cache.adapters] * len(condition.text))
                shape = (len(condition.text), 2, self.config.num_heads, self.config.head_dim)
                for index, layer in enumerate(weights.layers):
                    cache.write_text(row, index, *layer.cross_kv(condition.text).view(shape).unbind(1))
            row.text = condition.text

    @torch.inference_mode()
    def step(self, codes: Tensor, caches: Sequence[KvCache], weights: Sequence[Sequence[float]] = ()) -> Tensor:
        """Runs one decode step. codes: int64 [B, K], the newest of each request → logits: [B, 2, K, card].

        The logits are the branches' and the negative condition's. `weights` has those of the branches of each request;
        it can be empty if none has more than one. Every cache grows by one position. All caches are of one pool.
        """
        pool, config = caches[0].pool, self.config
        plan = pool.plan_step(caches)
        reads = plan.reads
        positions = [cache.position for cache in caches]
        self._extend_positions(max(positions))
        x = F.embedding_bag(codes + self._offsets, self._embedding, mode="sum")  # [B, dim]
        x = (x + self._positions[positions]).index_select(0, reads.requests)  # [R, dim]
        text_rows = len(reads.prompt_mask)
        decoder = self._plain
        if any(cache.adapters for cache in caches):
            decoder = self._select([caches[row].adapters for row in reads.requests.tolist()])
            x = self._adapters.embed(codes[reads.requests] + self._offsets, x)
        for index, layer in enumerate(decoder.layers):
            qkv = layer.qkv(layer.norm_self(x)).view(len(x), 3, config.num_heads, config.head_dim)
            pool.blocks.write(index, reads.write_blocks, plan.write_within, qkv[:, 1], qkv[:, 2])
            x = layer.out.add_residual(pool.blocks.attend(index, qkv, reads.blocks, plan.mask), x)
            if reads.prompts is not None:
                rows = x[:text_rows]
                queries = layer.cross_q(layer.norm_cross(rows)).view(text_rows, 1, config.num_heads, config.head_dim)
                attended = pool.prompt_blocks.attend(index, queries, reads.prompts, reads.prompt_mask)
                rows.copy_(layer.cross_out.add_residual(attended, rows))
            x = layer.down.add_residual(layer.up.gelu(layer.norm_ff(x)), x)
        for cache in caches:
            cache.position += 1
        logits = decoder.heads(decoder.out_norm(x)).view(-1, config.n_q, config.card)
        return _combine_rows(logits, reads, weights)

    @torch.inference_mode()
    def prefill(self, codes: Tensor, cache: KvCache) -> None:
        """Reads known codes, int64 [K, n], in one pass. The cache grows by n positions.

        It writes what n steps would write, except for rounding: 1e-5 in fp32; in int8, a value may be quantised to the
        neighbouring level. It computes no logits, so the newest codes are left to `step`.
        """
        codes = codes.t() + self._offsets
        x = F.embedding_bag(codes, self._embedding, mode="sum")
        if cache.adapters:
            self._select([cache.adapters] * len(x))
            x = self._adapters.embed(codes, x)
        self._read(x[None], cache)

    @torch.inference_mode()
    def prefill_prefix(self, prefixes: Tensor, cache: KvCache) -> None:
        """Reads vectors in place of codes in one pass: [rows, n, dim], for the branches and the negative condition. The
        cache grows by n positions."""
        self._read(prefixes, cache)

    def _read(self, inputs: Tensor, cache: KvCache) -> None:
        """inputs: [rows, n, dim], or [1, n, dim] for the same in all rows."""
        config, count, start, cached_rows = self.config, inputs.shape[1], cache.position, cache.rows
        end = start + count
        self._extend_positions(end)
        weights = self._select([cache.adapters] * (len(cached_rows) * count))
        inputs = inputs + self._positions[start:end]
        x = inputs.expand(len(cached_rows), -1, -1).reshape(-1, config.dim)  # [rows n, dim]
        mask = torch.ones(count, end, dtype=torch.bool).tril(start)
        for index, layer in enumerate(weights.layers):
            qkv = layer.qkv(layer.norm_self(x)).view(len(cached_rows), count, 3, config.num_heads, config.head_dim)
            queries, keys, values = qkv.unbind(2)  # each [rows, n, H, D]
            cache.append(index, keys, values)
            if index == config.num_layers - 1:
                break  # The rest of the last layer is needed only for logits.
            attended = F.scaled_dot_product_attention(queries.transpose(1, 2), *cache.view(index, end), mask)
            x = layer.out.add_residual(attended.transpose(1, 2).reshape(-1, config.dim), x)
            for row, rows in zip(cached_rows, x.view(-1, count, config.dim), strict=True):
                if row.text is None:
                    continue
                queries = layer.cross_q(layer.norm_cross(rows)).view(count, config.num_heads, -1).transpose(0, 1)
                attended = F.scaled_dot_product_attention(queries, *cache.view_text(row, index))  # [H, n, D]
                rows.copy_(layer.cross_out.add_residual(attended.transpose(0, 1).reshape(-1, config.dim), rows))
            x = layer.down.add_residual(layer.up.gelu(layer.norm_ff(x)), x)
        cache.position = end

    def _select(self, rows: RowAdapters) -> DecoderWeights:
        """The weights for rows with these adapters. Without any they are those of the checkpoint: the calls that would
        find nothing to add take longer than some of the step's operations."""
        if not any(rows):
            return self._plain
        self._adapters.select(rows)
        return self._adapted

    def _extend_positions(self, position: int) -> None:
        if position >= len(self._positions):
            count = max(position + 1, 2 * len(self._positions))
            self._positions = sinusoidal_embeddings(count, self.config).to(self.device)


def _combine_rows(logits: Tensor, reads: BatchReads, weights: Sequence[Sequence[float]]) -> Tensor:
    """[R, K, card] → [B, 2, K, card]: the weighted sum of each request's branches, and its negative condition."""
    batch = len(reads.branches)
    if reads.negatives is None and len(logits) == 2 * batch:
        return logits.view(2, batch, *logits.shape[1:]).transpose(0, 1)
    combined = torch.stack([logits[:batch], logits[-batch:] if reads.negatives is None else logits[reads.negatives]], 1)
    for index, rows in enumerate(reads.branches):
        if len(rows) > 1:
            combined[index, 0] = (logits[rows] * torch.tensor(weights[index])[:, None, None]).sum(0)
    return combined
