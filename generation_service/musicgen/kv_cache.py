"""Keys and values of one request: what its next step attends to."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from generation_service.musicgen.config import LmConfig
from service_runtime.errors import InvalidArgument, ResourceExhausted

ROWS = 2
"""Of a request: with the prompt, and without it for classifier-free guidance."""
RETRY_SECONDS = 10.0
"""After which a request that found no memory is worth asking again."""


class KvCache:
    """A request's own: grows to its `capacity` in place, so nothing is ever copied.

    Requests of different ages share a batch by their linear layers; each attends to just what it has, so its
    attention has the same shapes, and gives the same bits, in any company.
    """

    def __init__(self, config: LmConfig, capacity: int) -> None:
        self.position = 0
        """Positions written; where the next step writes."""
        shape = (config.num_layers, 2, ROWS, config.num_heads, capacity, config.head_dim)
        self.layers = list(torch.empty(shape).unbind(0))
        """[2 (key, value), 2 (rows), H, capacity, D] for each layer."""
        self.cross: list[Tensor] | None = None
        """[2 (key, value), 1, H, T, D] for each layer, of the row that has the prompt. None: there is no prompt."""

    def rewind(self) -> None:
        """Begin anew at position 0, in the same memory and with the same prompt."""
        self.position = 0


class KvMemory:
    """Bounds what all requests' caches may take together, in bytes. Reserving comes before allocating."""

    def __init__(self, config: LmConfig, limit_bytes: int) -> None:
        self._config = config
        self.limit_bytes = limit_bytes
        self._sizes: dict[KvCache, int] = {}
        self._lock = threading.Lock()

    @property
    def reserved_bytes(self) -> int:
        """By all caches that were reserved and not released."""
        return sum(tuple(self._sizes.values()))

    def size_bytes(self, capacity: int, tokens: int) -> int:
        """What a cache of so many positions takes, with a prompt of so many tokens."""
        vectors = ROWS * capacity + tokens
        return self._config.num_layers * 2 * vectors * self._config.dim * torch.float32.itemsize

    def reserve(self, capacity: int, tokens: int = 0) -> KvCache:
        """Raises ResourceExhausted where it does not fit beside the others, InvalidArgument where it never would."""
        size = self.size_bytes(capacity, tokens)
        if size > self.limit_bytes:
            raise InvalidArgument(
                "duration_seconds",
                f"its KV cache of {capacity} steps would take {size >> 20} MiB; "
                f"{self.limit_bytes >> 20} MiB are room for {self.limit_bytes * capacity // size}",
                reason="KV_MEMORY",
            )
        with self._lock:
            if self.reserved_bytes + size > self.limit_bytes:
                raise ResourceExhausted(
                    f"its KV cache of {size >> 20} MiB does not fit: {self.reserved_bytes >> 20} of "
                    f"{self.limit_bytes >> 20} MiB are taken; ask for less, or when another generation has ended",
                    reason="KV_MEMORY",
                    retry_after_seconds=RETRY_SECONDS,
                )
            try:
                cache = KvCache(self._config, capacity)
            except RuntimeError as error:  # What torch raises where the system has no memory left.
                raise MemoryError(f"no {size >> 20} MiB for a KV cache") from error
            self._sizes[cache] = size
        return cache

    def release(self, cache: KvCache) -> None:
        """Gives the memory back; the cache is not used again."""
        with self._lock:
            del self._sizes[cache]
        cache.layers, cache.cross = [], None
