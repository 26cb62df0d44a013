"""The KV cache of one request on the CPU, and the pool that bounds the memory of all caches.

At long positions most of a step's time is spent reading the cache, so keys and values are laid out for sequential
reading: for every head, the values have a row per position, and the keys are in blocks of a few positions with a row
per channel. The scores of a query are then a sum of key rows weighted by the query, just as the output of attention is
a sum of value rows weighted by the softmax.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.absorbed_cross_attention import AbsorbedCrossAttention
from generation_service.models.musicgen.lm.weighted_row_sum import weighted_row_sum

BLOCK_POSITIONS = 32
"""Positions per block. Smaller blocks mean shorter rows, each of which costs an index and a weight; larger blocks mean
more unused positions to read and mask."""
CFG_ROWS = 2
"""Rows of a request in a batch: one with the prompt, and one without it for classifier-free guidance."""
RETRY_SECONDS = 10.0
"""How long a request that found no free memory should wait before it retries."""


class KvCache:
    """Keys and values of one request. It is allocated for `capacity` positions and filled in place, without copies.

    Requests at different positions share a batch in the linear layers only. Attention runs per request over exactly its
    own cache, so it has the same shapes, and gives the same bits, whatever else is in the batch.
    """

    cross: list[Tensor] | None
    """The prompt's [2 (key, value), 1, H, T, D] for each layer; None if there is no prompt, or if it is absorbed."""
    absorbed: list[AbsorbedCrossAttention] | None
    """The absorbed cross-attention of a short prompt for each layer."""

    def __init__(self, config: LmConfig, capacity: int) -> None:
        self.position = 0
        """The number of positions written so far, which is the index of the next one."""
        self.cross = self.absorbed = None
        shape = (config.num_layers, CFG_ROWS, config.num_heads, -(-capacity // BLOCK_POSITIONS))
        self._keys = torch.empty(*shape, config.head_dim, BLOCK_POSITIONS)
        """[layers, 2 (rows), H, blocks, D, BLOCK_POSITIONS]."""
        self._values = torch.empty(*shape, BLOCK_POSITIONS, config.head_dim)
        """[layers, 2 (rows), H, blocks, BLOCK_POSITIONS, D]."""
        key_rows, value_rows = self._keys.view(len(self._keys), -1, BLOCK_POSITIONS), self._values.flatten(1, -2)
        self._tables = list(zip(key_rows.unbind(0), value_rows.unbind(0), strict=True))
        """The same as tables for `weighted_row_sum`: keys, [2 H blocks D, BLOCK_POSITIONS], and values,
        [2 H blocks BLOCK_POSITIONS, D], for each layer."""
        self._step: _StepIndices | None = None
        self._new_keys: Sequence[Tensor] = ()
        """The views that the current step writes to: [2 (rows), H, D] for each layer."""
        self._new_values: Sequence[Tensor] = ()

    def rewind(self) -> None:
        """Restarts at position 0 with the same memory and the same prompt."""
        self.position = 0

    def free(self) -> None:
        """Releases the memory. The cache must not be used again."""
        self._keys = self._values = torch.empty(0)
        self._tables, self._step, self.cross, self.absorbed = [], None, None, None
        self._new_keys = self._new_values = ()

    def append(self, index: int, keys: Tensor, values: Tensor) -> None:
        """Writes the next n positions of a layer: keys and values [2 (rows), H, n, D].

        `position` does not change, because the other layers are still to be written.
        """
        end = self.position + keys.shape[2]
        if (end - 1) // BLOCK_POSITIONS * BLOCK_POSITIONS >= self.position:
            self._values[index, :, :, (end - 1) // BLOCK_POSITIONS] = 0  # As in `begin_step`.
        at = torch.arange(self.position, end)
        self._keys[index][:, :, at // BLOCK_POSITIONS, :, at % BLOCK_POSITIONS] = keys.permute(2, 0, 1, 3)
        self._values[index].flatten(2, 3)[:, :, self.position : end] = values

    def view(self, index: int, end: int) -> Tensor:
        """The positions of a layer up to `end` (exclusive): [2 (key, value), 2 (rows), H, end, D]."""
        return torch.stack([self._keys[index].transpose(-1, -2), self._values[index]]).flatten(3, 4)[..., :end, :]

    def begin_step(self) -> None:
        """Prepares what `attend` needs in all layers at the current position."""
        block, within = divmod(self.position, BLOCK_POSITIONS)
        if not within:
            # Future values have a weight of 0, but 0 · NaN is NaN, so the new block must not hold uninitialized memory.
            self._values[:, :, :, block] = 0
        if self._step is None or len(self._step.scale) != block + 1:
            self._step = _StepIndices.build(self._keys.shape, block + 1)
        self._new_keys = self._keys[:, :, :, block, :, within].unbind(0)
        self._new_values = self._values[:, :, :, block, within].unbind(0)

    def attend(self, index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Writes the next position of a layer and attends to all positions up to it. [2 (rows), H, D] → [2 H, D]."""
        self._new_keys[index].copy_(key)
        self._new_values[index].copy_(value)
        step = self._step
        assert step is not None
        keys, values = self._tables[index]
        weights = (query.unsqueeze(2) * step.scale).view(-1)
        scores = weighted_row_sum(keys, step.key_rows, step.key_offsets, weights)  # [2 H blocks, BLOCK_POSITIONS]
        scores = scores.view(len(step.value_offsets), -1)  # [2 H, blocks BLOCK_POSITIONS]
        scores.narrow(1, self.position + 1, scores.shape[1] - self.position - 1).fill_(-torch.inf)
        return weighted_row_sum(values, step.value_rows, step.value_offsets, scores.softmax(-1).view(-1))


@dataclass(frozen=True, slots=True)
class _StepIndices:
    """The arguments of a step's `weighted_row_sum`, which are the same for all steps within a block."""

    scale: Tensor
    """[blocks, 1], the attention scale, repeated for every block that a query meets."""
    key_rows: Tensor
    """[2 H blocks D], the indices of the key rows in the first `blocks` blocks of every head."""
    key_offsets: Tensor
    """[2 H blocks], where the rows of each block begin among `key_rows`."""
    value_rows: Tensor
    """[2 H blocks BLOCK_POSITIONS], the indices of the value rows in the same blocks."""
    value_offsets: Tensor
    """[2 H], where the rows of each head begin among `value_rows`."""

    @classmethod
    def build(cls, shape: Sequence[int], blocks: int) -> _StepIndices:
        """`shape` is that of a cache's keys; `blocks` is how many blocks the step reads."""
        _, rows, heads, capacity, size, _ = shape

        def indices(end: int, step: int) -> Tensor:
            return torch.arange(0, end, step, dtype=torch.int32)

        def table_rows(rows_per_block: int) -> Tensor:
            head_starts = indices(rows * heads * capacity * rows_per_block, capacity * rows_per_block)
            return (head_starts[:, None] + indices(blocks * rows_per_block, 1)).view(-1)

        return cls(
            scale=torch.full((blocks, 1), size**-0.5),
            key_rows=table_rows(size),
            key_offsets=indices(rows * heads * blocks * size, size),
            value_rows=table_rows(BLOCK_POSITIONS),
            value_offsets=indices(rows * heads * blocks * BLOCK_POSITIONS, blocks * BLOCK_POSITIONS),
        )


class KvCachePool:
    """Bounds the memory of all requests' caches together, in bytes. Memory is reserved before it is allocated."""

    def __init__(self, config: LmConfig, limit_bytes: int, max_absorbed_tokens: int = 0) -> None:
        """`max_absorbed_tokens` is that of the language model that uses the caches."""
        self._config = config
        self._absorbed_tokens = max_absorbed_tokens
        self.limit_bytes = limit_bytes
        self._sizes: dict[KvCache, int] = {}
        self._lock = threading.Lock()

    @property
    def reserved_bytes(self) -> int:
        """The size of all caches that are reserved and not yet released."""
        return sum(tuple(self._sizes.values()))

    def size_bytes(self, capacity: int, tokens: int) -> int:
        """The size of a cache with `capacity` positions, rounded up to whole blocks, and a prompt of `tokens`."""
        prompt = tokens * self._config.num_heads if tokens <= self._absorbed_tokens else tokens
        vectors = CFG_ROWS * -(-capacity // BLOCK_POSITIONS) * BLOCK_POSITIONS + prompt
        return self._config.num_layers * 2 * vectors * self._config.dim * torch.float32.itemsize

    def reserve(self, capacity: int, tokens: int = 0) -> KvCache:
        """Raises ResourceExhausted if the cache does not fit beside those that are already reserved."""
        size = self.size_bytes(capacity, tokens)
        with self._lock:
            if self.reserved_bytes + size > self.limit_bytes:
                raise ResourceExhausted(
                    f"the request needs a KV cache of {size >> 20} MiB, but {self.reserved_bytes >> 20} of "
                    f"{self.limit_bytes >> 20} MiB are in use; request a shorter duration, or retry when another "
                    "generation has finished",
                    reason="KV_MEMORY",
                    retry_after_seconds=RETRY_SECONDS,
                )
            try:
                cache = KvCache(self._config, capacity)
            except RuntimeError as error:  # torch raises this if the system has no memory left.
                raise MemoryError(f"failed to allocate {size >> 20} MiB for a KV cache") from error
            self._sizes[cache] = size
        return cache

    def release(self, cache: KvCache) -> None:
        """Returns the memory to the pool. The cache must not be used again."""
        with self._lock:
            del self._sizes[cache]
        cache.free()
