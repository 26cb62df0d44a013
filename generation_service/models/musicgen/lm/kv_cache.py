"""Keys and values of one request: what its next step attends to.

At long positions a step's time goes into reading them, so they lie as they are read: for every head the values with a
line for each position, the keys in blocks of a few positions with a line for each channel. A query's products with the
keys are then a sum of the keys' lines, weighted by the query, as what attention gives is a sum of the values' lines,
weighted by the softmax.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.lm.absorbed_cross_attention import AbsorbedText
from generation_service.models.musicgen.lm.weighted_row_sum import sum_lines

BLOCK = 32
"""Positions. Fewer make shorter lines, with a number and a weight each; more are read and left out at the start."""
ROWS = 2
"""Of a request: with the prompt, and without it for classifier-free guidance."""
RETRY_SECONDS = 10.0
"""After which a request that found no memory is worth asking again."""


class KvCache:
    """A request's own: grows to its `capacity` in place, so nothing is ever copied.

    Requests of different ages share a batch by their linear layers; each attends to just what it has, so its
    attention has the same shapes, and gives the same bits, in any company.
    """

    cross: list[Tensor] | None
    """[2 (key, value), 1, H, T, D] for each layer, of the row that has the prompt. None: there is no prompt, or it is
    absorbed."""
    absorbed: list[AbsorbedText] | None
    """The same of a short prompt, for each layer."""

    def __init__(self, config: LmConfig, capacity: int) -> None:
        self.position = 0
        """Positions written; where the next step writes."""
        self.cross = self.absorbed = None
        shape = (config.num_layers, ROWS, config.num_heads, -(-capacity // BLOCK))
        self._keys = torch.empty(*shape, config.head_dim, BLOCK)
        """[layers, 2 (rows), H, blocks, D, BLOCK]."""
        self._values = torch.empty(*shape, BLOCK, config.head_dim)
        """[layers, 2 (rows), H, blocks, BLOCK, D]."""
        key_lines, value_lines = self._keys.view(len(self._keys), -1, BLOCK), self._values.flatten(1, -2)
        self._lines = list(zip(key_lines.unbind(0), value_lines.unbind(0), strict=True))
        """Of keys, [2 H blocks D, BLOCK], and of values, [2 H blocks BLOCK, D], for each layer."""
        self._step: _Step | None = None
        self._new_keys: Sequence[Tensor] = ()
        """Where the step's go, [2 (rows), H, D] for each layer."""
        self._new_values: Sequence[Tensor] = ()

    def rewind(self) -> None:
        """Begin anew at position 0, in the same memory and with the same prompt."""
        self.position = 0

    def drop(self) -> None:
        """Let the memory go; the cache is not used again."""
        self._keys = self._values = torch.empty(0)
        self._lines, self._step, self.cross, self.absorbed = [], None, None, None
        self._new_keys = self._new_values = ()

    def put(self, index: int, keys: Tensor, values: Tensor) -> None:
        """Write a layer's next positions, each [2 (rows), H, n, D]. `position` stays: there are more layers."""
        end = self.position + keys.shape[2]
        if (end - 1) // BLOCK * BLOCK >= self.position:
            self._values[index, :, :, (end - 1) // BLOCK] = 0  # As in `begin_step`.
        at = torch.arange(self.position, end)
        self._keys[index][:, :, at // BLOCK, :, at % BLOCK] = keys.permute(2, 0, 1, 3)
        self._values[index].flatten(2, 3)[:, :, self.position : end] = values

    def kept(self, index: int, end: int) -> Tensor:
        """A layer's positions before `end`: [2 (key, value), 2 (rows), H, end, D]."""
        return torch.stack([self._keys[index].transpose(-1, -2), self._values[index]]).flatten(3, 4)[..., :end, :]

    def begin_step(self) -> None:
        """What all layers' `attend` at this position needs."""
        block, within = divmod(self.position, BLOCK)
        if not within:
            # Values that are yet to come have a weight of 0, which makes nothing of a NaN that lies there.
            self._values[:, :, :, block] = 0
        if self._step is None or len(self._step.scale) != block + 1:
            self._step = _Step.of(self._keys.shape, block + 1)
        self._new_keys = self._keys[:, :, :, block, :, within].unbind(0)
        self._new_values = self._values[:, :, :, block, within].unbind(0)

    def attend(self, index: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Write a layer's next position, and attend to all up to and with it. Each [2 (rows), H, D] → [2 H, D]."""
        self._new_keys[index].copy_(key)
        self._new_values[index].copy_(value)
        step = self._step
        assert step is not None
        keys, values = self._lines[index]
        weights = (query.unsqueeze(2) * step.scale).view(-1)
        scores = sum_lines(keys, step.key_lines, step.key_bags, weights)  # [2 H blocks, BLOCK]
        scores = scores.view(len(step.value_bags), -1)  # [2 H, blocks BLOCK]
        scores.narrow(1, self.position + 1, scores.shape[1] - self.position - 1).fill_(-torch.inf)
        return sum_lines(values, step.value_lines, step.value_bags, scores.softmax(-1).view(-1))


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step reads, which is the same for all steps within a block."""

    scale: Tensor
    """[blocks, 1], of a query, for each block that it meets."""
    key_lines: Tensor
    """[2 H blocks D], by number, of the first so many blocks of every head."""
    key_bags: Tensor
    """[2 H blocks], where the lines of each block begin among them."""
    value_lines: Tensor
    """[2 H blocks BLOCK], likewise,"""
    value_bags: Tensor
    """and [2 H], where those of each head begin."""

    @classmethod
    def of(cls, shape: Sequence[int], blocks: int) -> _Step:
        """`shape` of a cache's keys."""
        _, rows, heads, capacity, size, _ = shape

        def numbers(end: int, step: int) -> Tensor:
            return torch.arange(0, end, step, dtype=torch.int32)

        def lines(of_block: int) -> Tensor:
            every = numbers(rows * heads * capacity * of_block, capacity * of_block)
            return (every[:, None] + numbers(blocks * of_block, 1)).view(-1)

        return cls(
            scale=torch.full((blocks, 1), size**-0.5),
            key_lines=lines(size),
            key_bags=numbers(rows * heads * blocks * size, size),
            value_lines=lines(BLOCK),
            value_bags=numbers(rows * heads * blocks * BLOCK, blocks * BLOCK),
        )


class KvMemory:
    """Bounds what all requests' caches may take together, in bytes. Reserving comes before allocating."""

    def __init__(self, config: LmConfig, limit_bytes: int, absorbed_tokens: int = 0) -> None:
        """`absorbed_tokens` of the language model whose caches they are."""
        self._config = config
        self._absorbed_tokens = absorbed_tokens
        self.limit_bytes = limit_bytes
        self._sizes: dict[KvCache, int] = {}
        self._lock = threading.Lock()

    @property
    def reserved_bytes(self) -> int:
        """By all caches that were reserved and not released."""
        return sum(tuple(self._sizes.values()))

    def size_bytes(self, capacity: int, tokens: int) -> int:
        """What a cache of so many positions takes, in whole blocks, with a prompt of so many tokens."""
        prompt = tokens * self._config.num_heads if tokens <= self._absorbed_tokens else tokens
        vectors = ROWS * -(-capacity // BLOCK) * BLOCK + prompt
        return self._config.num_layers * 2 * vectors * self._config.dim * torch.float32.itemsize

    def reserve(self, capacity: int, tokens: int = 0) -> KvCache:
        """Raises ResourceExhausted where it does not fit beside the others."""
        size = self.size_bytes(capacity, tokens)
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
        cache.drop()
