"""The KV caches of all requests in tensors at fixed addresses, for captured CUDA graphs to read and write.

A request is given one slot of these tensors and uses it through the interface of `KvCache`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dgx_music.errors import InvalidArgument, ResourceExhausted
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.kv_cache import CFG_ROWS, RETRY_SECONDS, KvCache, KvCachePool

MAX_PROMPT_TOKENS = 512
"""The longest prompt, which is also the longest that T5 was trained on."""
_ALIGNMENT = 8
"""CUDA's attention requires the rows of its mask to begin at multiples of this many elements."""


class SlotKvCache(KvCache):
    """One request's slot of a `StaticKvCachePool`."""

    def __init__(self, slot: int, layers: list[Tensor]) -> None:
        self.position = 0
        self.slot = slot
        self._layers = layers
        """[2 (key, value), 2 (rows), H, capacity, D] for each layer, the layout that attention on a GPU reads."""
        self.cross = self.absorbed = None

    def append(self, index: int, keys: Tensor, values: Tensor) -> None:
        self._layers[index][:, :, :, self.position : self.position + keys.shape[2]] = torch.stack([keys, values])

    def view(self, index: int, end: int) -> Tensor:
        return self._layers[index][:, :, :, :end]


class StaticKvCachePool(KvCachePool):
    """Slots for a fixed number of requests, allocated once.

    The lowest free slot is used first, which keeps the slots in use together."""

    def __init__(
        self, config: LmConfig, requests: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """`capacity` is the number of positions of one request."""
        self.capacity = _align(capacity)
        self.dtype = dtype
        super().__init__(config, requests * slot_bytes(config, self.capacity, dtype))
        heads, head_dim = config.num_heads, config.head_dim
        # Zeros rather than uninitialized memory: masked values have a weight of 0, but 0 · NaN is NaN.
        self.layers = list(
            torch.zeros(
                config.num_layers, 2, requests * CFG_ROWS, heads, self.capacity, head_dim, dtype=dtype, device=device
            ).unbind(0)
        )
        """[2 (key, value), requests 2 (rows), H, capacity, D] for each layer."""
        self.cross = list(
            torch.zeros(
                config.num_layers, 2, requests, heads, MAX_PROMPT_TOKENS, head_dim, dtype=dtype, device=device
            ).unbind(0)
        )
        """[2 (key, value), requests, H, MAX_PROMPT_TOKENS, D] for each layer."""
        self.tokens = torch.ones(requests, dtype=torch.int64, device=device)
        """[requests], the length of each prompt. A request without a prompt has one token of zeros, so that its
        cross-attention is 0."""
        self.slots: list[SlotKvCache | None] = [None] * requests

    def size_bytes(self, capacity: int, tokens: int) -> int:
        """The size of one slot, however much of it is used."""
        return slot_bytes(self._config, self.capacity, self.dtype)

    def reserve(self, capacity: int, tokens: int = 0) -> SlotKvCache:
        """Raises ResourceExhausted if all slots are in use, InvalidArgument if the request is too large for a slot."""
        if tokens > MAX_PROMPT_TOKENS:
            problem = f"has {tokens} tokens; on a GPU, this model reads at most {MAX_PROMPT_TOKENS}"
            raise InvalidArgument("prompt", problem)
        if capacity > self.capacity:
            raise InvalidArgument("duration_seconds", f"needs {capacity} steps; a window has at most {self.capacity}")
        with self._lock:
            if None not in self.slots:
                raise ResourceExhausted(
                    f"all {len(self.slots)} KV caches are in use; retry when another generation has finished",
                    reason="KV_MEMORY",
                    retry_after_seconds=RETRY_SECONDS,
                )
            slot = self.slots.index(None)
            rows = slice(slot * CFG_ROWS, (slot + 1) * CFG_ROWS)
            cache = SlotKvCache(slot, [layer[:, rows] for layer in self.layers])
            self.slots[slot] = cache
            self._sizes[cache] = self.size_bytes(capacity, tokens)
        return cache

    def release(self, cache: KvCache) -> None:
        """Frees the slot. The cache must not be used again."""
        super().release(cache)
        self.slots[self.slots.index(cache)] = None  # type: ignore[arg-type]  # Found by identity.

    def set_prompt(self, cache: SlotKvCache, cross: list[Tensor] | None) -> None:
        """Stores the projected prompt of a request: [2 (key, value), 1, H, T, D] for each layer, or None."""
        slot = cache.slot
        count = 1 if cross is None else cross[0].shape[-2]
        for index, layer in enumerate(self.cross):
            layer[:, slot, :, :count] = 0 if cross is None else cross[index][:, 0]
        self.tokens[slot] = count
        if cross is not None:
            cache.cross = [layer[:, slot : slot + 1, :, :count] for layer in self.cross]


def slot_bytes(config: LmConfig, capacity: int, dtype: torch.dtype) -> int:
    """The size of one slot with `capacity` positions."""
    vectors = CFG_ROWS * _align(capacity) + MAX_PROMPT_TOKENS
    return config.num_layers * 2 * vectors * config.dim * dtype.itemsize


def _align(capacity: int) -> int:
    return -(-capacity // _ALIGNMENT) * _ALIGNMENT
