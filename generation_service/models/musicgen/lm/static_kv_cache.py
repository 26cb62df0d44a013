"""All requests' keys and values in tensors that never move: what a captured graph reads and writes.

A request is given a slot of them, and sees it as a `KvCache` like any other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgx_music.errors import InvalidArgument, ResourceExhausted
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.kv_cache import RETRY_SECONDS, ROWS, KvCache, KvMemory

TOKEN_CAPACITY = 512
"""Tokens of a prompt at most: as many as T5 was trained on."""
_ALIGNMENT = 8
"""CUDA's attention wants the rows of its mask to begin at multiples of so many elements."""


class SlotCache(KvCache):
    """One request's part of a `StaticKv`."""

    def __init__(self, slot: int, layers: list[Tensor]) -> None:
        self.position = 0
        self.slot = slot
        self._layers = layers
        """[2 (key, value), 2 (rows), H, capacity, D] for each layer, plain, as a GPU's attention reads them."""
        self.cross = self.absorbed = None

    def put(self, index: int, keys: Tensor, values: Tensor) -> None:
        self._layers[index][:, :, :, self.position : self.position + keys.shape[2]] = torch.stack([keys, values])

    def kept(self, index: int, end: int) -> Tensor:
        return self._layers[index][:, :, :, :end]


class StaticKv(KvMemory):
    """Slots for so many requests, allocated once. The lowest free one goes first, so that those in use lie together."""

    def __init__(
        self, config: LmConfig, requests: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """`capacity` in positions of one request."""
        self.capacity = _aligned(capacity)
        self.dtype = dtype
        super().__init__(config, requests * slot_bytes(config, self.capacity, dtype))
        heads, head_dim = config.num_heads, config.head_dim
        # Zeros, not whatever lies there: a masked value is multiplied by 0, which makes nothing of a NaN.
        self.layers = list(
            torch.zeros(
                config.num_layers, 2, requests * ROWS, heads, self.capacity, head_dim, dtype=dtype, device=device
            ).unbind(0)
        )
        """[2 (key, value), requests 2 (rows), H, capacity, D] for each layer."""
        self.cross = list(
            torch.zeros(
                config.num_layers, 2, requests, heads, TOKEN_CAPACITY, head_dim, dtype=dtype, device=device
            ).unbind(0)
        )
        """[2 (key, value), requests, H, TOKEN_CAPACITY, D] for each layer."""
        self.tokens = torch.ones(requests, dtype=torch.int64, device=device)
        """[requests], of each prompt. A request without a prompt has one token, of zeros: its cross-attention is 0."""
        self.holders: list[SlotCache | None] = [None] * requests

    def size_bytes(self, capacity: int, tokens: int) -> int:
        """A slot, whatever of it is used."""
        return slot_bytes(self._config, self.capacity, self.dtype)

    def reserve(self, capacity: int, tokens: int = 0) -> SlotCache:
        """Raises ResourceExhausted while all slots are taken, InvalidArgument for what never fits into one."""
        if tokens > TOKEN_CAPACITY:
            raise InvalidArgument("prompt", f"has {tokens} tokens; this model on a GPU reads at most {TOKEN_CAPACITY}")
        if capacity > self.capacity:
            raise InvalidArgument("duration_seconds", f"takes {capacity} steps; a window has at most {self.capacity}")
        with self._lock:
            if None not in self.holders:
                raise ResourceExhausted(
                    f"all {len(self.holders)} KV caches are taken; ask again when another generation has ended",
                    reason="KV_MEMORY",
                    retry_after_seconds=RETRY_SECONDS,
                )
            slot = self.holders.index(None)
            rows = slice(slot * ROWS, (slot + 1) * ROWS)
            cache = SlotCache(slot, [layer[:, rows] for layer in self.layers])
            self.holders[slot] = cache
            self._sizes[cache] = self.size_bytes(capacity, tokens)
        return cache

    def release(self, cache: KvCache) -> None:
        """Gives the slot back; the cache is not used again."""
        super().release(cache)
        self.holders[self.holders.index(cache)] = None  # type: ignore[arg-type]  # Found by identity.

    def put_prompt(self, cache: SlotCache, cross: list[Tensor] | None) -> None:
        """Keep what the prompt's attention reads: [2 (key, value), 1, H, T, D] for each layer, None for no prompt."""
        slot = cache.slot
        count = 1 if cross is None else cross[0].shape[-2]
        for index, layer in enumerate(self.cross):
            layer[:, slot, :, :count] = 0 if cross is None else cross[index][:, 0]
        self.tokens[slot] = count
        if cross is not None:
            cache.cross = [layer[:, slot : slot + 1, :, :count] for layer in self.cross]


def slot_bytes(config: LmConfig, capacity: int, dtype: torch.dtype) -> int:
    """What one request's slot takes, for so many positions."""
    vectors = ROWS * _aligned(capacity) + TOKEN_CAPACITY
    return config.num_layers * 2 * vectors * config.dim * dtype.itemsize


def _aligned(capacity: int) -> int:
    return -(-capacity // _ALIGNMENT) * _ALIGNMENT
