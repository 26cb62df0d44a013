"""The language model for an accelerator: a decode step has one of a few shapes and reads changing data from tensors.

This allows a step to be captured as a CUDA graph and replayed, which matters because launching its hundreds of small
kernels one by one takes longer than running them. Everything but the capture works on any device. Weights, `condition`
and `prefill` are those of `LanguageModel`.

As on the CPU, the logits of a request do not depend on the other requests: matrix products always have the rows of all
slots, and only attention, which treats every row separately and reads its keys in order, leaves rows out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from generation_service.models.musicgen.checkpoints.checkpoint import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.kv_cache import CFG_ROWS, KvCache
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision
from generation_service.models.musicgen.lm.static_kv_cache import MAX_PROMPT_TOKENS, SlotKvCache, StaticKvCachePool

LENGTH_BUCKETS = (256, 512, 1024)
"""The numbers of positions that attention may read; a step uses the smallest sufficient one, or a slot's capacity."""
TOKEN_BUCKETS = (64, MAX_PROMPT_TOKENS)
"""The same for the tokens of a prompt."""

StepShape = tuple[int, int, int]
"""The numbers of slots, positions and tokens that the attention of a step reads."""


class StepRunner(Protocol):
    """Runs a computation on tensors at fixed addresses, or replays the one that it ran before for the same shape."""

    def __call__(self, shape: StepShape, compute: Callable[[], Tensor]) -> Tensor: ...


def run_eagerly(shape: StepShape, compute: Callable[[], Tensor]) -> Tensor:
    """A `StepRunner` that always calls `compute`."""
    return compute()


class StaticLanguageModel(LanguageModel):
    """Runs on the device of a `StaticKvCachePool`, with the caches of that pool."""

    max_prefill_positions = 1024
    """A pass is bound by kernel launches: it takes as long for one position as for the overlap of two windows."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: LmConfig,
        precision: Precision,
        pool: StaticKvCachePool,
        runner: StepRunner = run_eagerly,
    ) -> None:
        """Raises FailedPrecondition if weights are missing or do not have the shape that the configuration gives."""
        device = pool.tokens.device
        super().__init__(checkpoint, config, precision, device)
        self.max_absorbed_tokens = 0  # The pool stores all prompts in the same layout.
        self._extend_positions(pool.capacity)  # Graphs hold the table's address, so it must not grow later.
        self._pool = pool
        self._run = runner
        slots = len(pool.slots)
        self._codes = torch.zeros(slots, config.n_q, dtype=torch.int64, device=device)
        self._current_positions = torch.zeros(slots, dtype=torch.int64, device=device)
        self._rows = torch.arange(slots * CFG_ROWS, device=device)
        self._span = torch.arange(max(pool.capacity, MAX_PROMPT_TOKENS), device=device)

    @torch.inference_mode()
    def condition(self, cache: KvCache, text: Tensor | None) -> None:
        super().condition(cache, None if text is None else text.to(self.device))
        assert isinstance(cache, SlotKvCache)
        self._pool.set_prompt(cache, cache.cross)

    @torch.inference_mode()
    def prefill(self, codes: Tensor, cache: KvCache) -> None:
        super().prefill(codes.to(self.device), cache)

    @torch.inference_mode()
    def step(self, codes: Tensor, caches: Sequence[KvCache]) -> Tensor:
        """codes: int64 [B, K], the newest of each request → fp32 logits: [B, 2, K, card], on the device."""
        slots, tokens = [], 1
        for cache in caches:
            assert isinstance(cache, SlotKvCache)
            slots.append(cache.slot)
            tokens = max(tokens, 1 if cache.cross is None else cache.cross[0].shape[-2])
        # A slot that takes no part in this step writes to the position that its own next step will overwrite.
        at = [min(holder.position, self._pool.capacity - 1) if holder else 0 for holder in self._pool.slots]
        inputs = torch.zeros(len(at), 1 + self.config.n_q, dtype=torch.int64)
        inputs[:, 0] = torch.tensor(at)
        inputs[slots, 1:] = codes
        on_device = inputs.to(self.device)
        self._current_positions.copy_(on_device[:, 0])
        self._codes.copy_(on_device[:, 1:])
        shape = (
            min(1 << max(slots).bit_length(), len(at)),
            _bucket(max(at[slot] for slot in slots) + 1, LENGTH_BUCKETS, self._pool.capacity),
            _bucket(tokens, TOKEN_BUCKETS, MAX_PROMPT_TOKENS),
        )
        logits = self._run(shape, lambda: self._compute(shape))
        for cache in caches:
            cache.position += 1
        return logits[torch.tensor(slots, device=self.device)]

    def _compute(self, shape: StepShape) -> Tensor:
        """One step of all slots → logits: [slots, 2, K, card]. Those of slots beyond `shape` are meaningless."""
        slots, length, tokens = shape
        rows = slots * CFG_ROWS
        x = F.embedding(self._codes + self._offsets, self._embedding).sum(1)  # [all slots, dim]
        slot_of_row = self._rows // CFG_ROWS
        x = (x + self._positions[self._current_positions])[slot_of_row]  # [all rows, dim]
        positions = self._current_positions[slot_of_row[:rows]]
        mask = self._mask(positions + 1, length)
        text_mask = self._mask(self._pool.tokens[:slots], tokens)
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            for layer, cached, cross in zip(self._layers, self._pool.layers, self._pool.cross, strict=True):
                qkv = layer.qkv(layer.norm_self(x))[:rows].view(rows, 3, self.config.num_heads, self.config.head_dim)
                cached[:, self._rows[:rows], :, positions] = qkv[:, 1:].to(cached.dtype)
                x = x + layer.out(self._attend_static(qkv[:, 0], cached[:, :rows, :, :length], mask, len(x)))
                prompted = x[0::CFG_ROWS]  # The cross-attention of the unconditional rows is 0.
                query = layer.cross_q(layer.norm_cross(prompted))[:slots].view(slots, self.config.num_heads, -1)
                text = self._attend_static(query, cross[:, :slots, :, :tokens], text_mask, len(prompted))
                x[0::CFG_ROWS] += layer.cross_out(text)
                x = x + layer.down(F.gelu(layer.up(layer.norm_ff(x))))
        logits = self._heads(self._out_norm(x)).float()
        return logits.view(-1, CFG_ROWS, self.config.n_q, self.config.card)

    def _attend_static(self, query: Tensor, cached: Tensor, mask: Tensor, rows: int) -> Tensor:
        """query: [n, H, D], cached: [2, n, H, L, D] → [rows, dim], padded with zeros from row n on."""
        attended = F.scaled_dot_product_attention(query.unsqueeze(2), cached[0], cached[1], mask)  # [n, H, 1, D]
        return F.pad(attended.reshape(-1, self.config.dim), (0, 0, 0, rows - len(query)))

    def _mask(self, counts: Tensor, length: int) -> Tensor:
        """counts: [n] → [n, 1, 1, length], 0 for the first `counts` positions of each row and -inf for the others."""
        hidden = self._span[:length] >= counts[:, None]
        mask = torch.zeros(hidden.shape, dtype=self._pool.dtype, device=self.device)
        return mask.masked_fill_(hidden, float("-inf"))[:, None, None]


def _bucket(count: int, sizes: Sequence[int], limit: int) -> int:
    """The smallest of `sizes` that is at least `count`, or `limit`."""
    return min(limit, next((size for size in sizes if count <= size), limit))
