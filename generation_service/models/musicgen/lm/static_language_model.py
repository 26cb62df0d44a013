"""The language model for an accelerator: every step has one of a few shapes, and reads what changes from tensors.

So a step can be captured as a CUDA graph and replayed, which matters since launching its hundreds of small kernels one
by one takes longer than running them. All but the capture is the same on any device. Weights, `condition` and `prefill`
are `LanguageModel`'s.

A request's logits are the same in any company, as on the CPU: matrix products always have the rows of all slots, and
attention, which every row does by itself, keys one after the other, is all that leaves rows out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from generation_service.models.musicgen.checkpoints.audiocraft_file import Checkpoint
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.kv_cache import ROWS, KvCache
from generation_service.models.musicgen.lm.language_model import LanguageModel
from generation_service.models.musicgen.lm.linear import Precision
from generation_service.models.musicgen.lm.static_kv_cache import TOKEN_CAPACITY, SlotCache, StaticKv

LENGTHS = (256, 512, 1024)
"""Positions that attention reads, the fewest that will do; beyond these, all that a slot has."""
TOKENS = (64, TOKEN_CAPACITY)
"""Likewise of a prompt."""

Shape = tuple[int, int, int]
"""Slots, positions and tokens that a step's attention reads."""


class Runner(Protocol):
    """Runs a computation on tensors that stay where they are. Called with the same shape, it may replay it."""

    def __call__(self, shape: Shape, compute: Callable[[], Tensor]) -> Tensor: ...


def run_eagerly(shape: Shape, compute: Callable[[], Tensor]) -> Tensor:
    """The runner that captures nothing."""
    return compute()


class StaticLanguageModel(LanguageModel):
    """Its caches are those that `memory` hands out. On the device of `memory`."""

    prefill_positions = 1024
    """A pass takes the time that launching its kernels takes, as much for one position as for a window's overlap."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: LmConfig,
        precision: Precision,
        memory: StaticKv,
        runner: Runner = run_eagerly,
    ) -> None:
        """Raises FailedPrecondition where weights are missing or of another shape than the configuration says."""
        device = memory.tokens.device
        super().__init__(checkpoint, config, precision, device)
        self.absorbed_tokens = 0  # All prompts lie alike in `memory`.
        self._reach(memory.capacity)  # Graphs read the table where it is: it may not grow later.
        self._memory = memory
        self._run = runner
        slots = len(memory.holders)
        self._codes = torch.zeros(slots, config.n_q, dtype=torch.int64, device=device)
        self._positions_now = torch.zeros(slots, dtype=torch.int64, device=device)
        self._rows = torch.arange(slots * ROWS, device=device)
        self._span = torch.arange(max(memory.capacity, TOKEN_CAPACITY), device=device)

    @torch.inference_mode()
    def condition(self, cache: KvCache, text: Tensor | None) -> None:
        super().condition(cache, None if text is None else text.to(self.device))
        assert isinstance(cache, SlotCache)
        self._memory.put_prompt(cache, cache.cross)

    @torch.inference_mode()
    def prefill(self, codes: Tensor, cache: KvCache) -> None:
        super().prefill(codes.to(self.device), cache)

    @torch.inference_mode()
    def step(self, codes: Tensor, caches: Sequence[KvCache]) -> Tensor:
        """codes: int64 [B, K], each request's newest → fp32 logits: [B, 2, K, card], on the device."""
        slots, tokens = [], 1
        for cache in caches:
            assert isinstance(cache, SlotCache)
            slots.append(cache.slot)
            tokens = max(tokens, 1 if cache.cross is None else cache.cross[0].shape[-2])
        # A slot that takes no part writes where its next step will write over it.
        at = [min(holder.position, self._memory.capacity - 1) if holder else 0 for holder in self._memory.holders]
        inputs = torch.zeros(len(at), 1 + self.config.n_q, dtype=torch.int64)
        inputs[:, 0] = torch.tensor(at)
        inputs[slots, 1:] = codes
        on_device = inputs.to(self.device)
        self._positions_now.copy_(on_device[:, 0])
        self._codes.copy_(on_device[:, 1:])
        shape = (
            min(1 << max(slots).bit_length(), len(at)),
            _bucket(max(at[slot] for slot in slots) + 1, LENGTHS, self._memory.capacity),
            _bucket(tokens, TOKENS, TOKEN_CAPACITY),
        )
        logits = self._run(shape, lambda: self._compute(shape))
        for cache in caches:
            cache.position += 1
        return logits[torch.tensor(slots, device=self.device)]

    def _compute(self, shape: Shape) -> Tensor:
        """One step of all slots → logits: [slots, 2, K, card]. What attention leaves out makes no sense."""
        slots, length, tokens = shape
        rows = slots * ROWS
        x = F.embedding(self._codes + self._offsets, self._embedding).sum(1)  # [all slots, dim]
        slot_of_row = self._rows // ROWS
        x = (x + self._positions[self._positions_now])[slot_of_row]  # [all rows, dim]
        positions = self._positions_now[slot_of_row[:rows]]
        mask = self._mask(positions + 1, length)
        text_mask = self._mask(self._memory.tokens[:slots], tokens)
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            for layer, kept, cross in zip(self._layers, self._memory.layers, self._memory.cross, strict=True):
                qkv = layer.qkv(layer.norm_self(x))[:rows].view(rows, 3, self.config.num_heads, self.config.head_dim)
                kept[:, self._rows[:rows], :, positions] = qkv[:, 1:].to(kept.dtype)
                x = x + layer.out(self._attend_static(qkv[:, 0], kept[:, :rows, :, :length], mask, len(x)))
                prompted = x[0::ROWS]  # The other row's cross-attention is 0.
                query = layer.cross_q(layer.norm_cross(prompted))[:slots].view(slots, self.config.num_heads, -1)
                text = self._attend_static(query, cross[:, :slots, :, :tokens], text_mask, len(prompted))
                x[0::ROWS] += layer.cross_out(text)
                x = x + layer.down(F.gelu(layer.up(layer.norm_ff(x))))
        logits = self._heads(self._out_norm(x)).float()
        return logits.view(-1, ROWS, self.config.n_q, self.config.card)

    def _attend_static(self, query: Tensor, kept: Tensor, mask: Tensor, rows: int) -> Tensor:
        """query: [n, H, D], kept: [2, n, H, L, D] → [rows, dim], zeros from n on."""
        attended = F.scaled_dot_product_attention(query.unsqueeze(2), kept[0], kept[1], mask)  # [n, H, 1, D]
        return F.pad(attended.reshape(-1, self.config.dim), (0, 0, 0, rows - len(query)))

    def _mask(self, counts: Tensor, length: int) -> Tensor:
        """counts: [n] → [n, 1, 1, length], 0 for the first so many of each and -inf for the rest."""
        hidden = self._span[:length] >= counts[:, None]
        mask = torch.zeros(hidden.shape, dtype=self._memory.dtype, device=self.device)
        return mask.masked_fill_(hidden, float("-inf"))[:, None, None]


def _bucket(count: int, sizes: Sequence[int], limit: int) -> int:
    """The least of `sizes` that holds so many, or `limit`."""
    return min(limit, next((size for size in sizes if count <= size), limit))
