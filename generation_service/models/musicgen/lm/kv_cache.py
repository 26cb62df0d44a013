"""The KV cache of a request on the CPU, and the pool of blocks that all requests share."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.adapters.adapter_weights import AppliedAdapter
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.lm.block_tables import BlockTables, block_count
from generation_service.models.musicgen.lm.kv_blocks import (
    BlockReads,
    BlockShape,
    KvBlocks,
    PlainKvBlocks,
    QuantizedKvBlocks,
)

BLOCK_POSITIONS = 64
"""Positions per block. Smaller blocks mean shorter rows, each of which costs an index and a weight; larger blocks mean
more unused positions to read and mask."""
PROMPT_BLOCK_TOKENS = 16
"""Tokens per block of a prompt. Most prompts fit into one or two."""
RETRY_SECONDS = 10.0
"""How long a request that found no free memory should wait before it retries."""


@dataclass(eq=False, slots=True)
class KvRow:
    """The memory of one row of a request: what a branch or the negative condition has read."""

    blocks: Sequence[int]
    """Blocks of `BLOCK_POSITIONS` positions."""
    prompt_blocks: Sequence[int]
    """Blocks of `PROMPT_BLOCK_TOKENS` tokens."""
    text: Tensor | None = None
    """[T, dim], the text whose keys and values are in `prompt_blocks`."""

    @property
    def tokens(self) -> int:
        return 0 if self.text is None else len(self.text)


@dataclass(eq=False, slots=True)
class KvCache:
    """The memory of one request, and how many positions are written."""

    pool: KvCachePool
    branches: Sequence[KvRow]
    """As many as any window has."""
    negative: KvRow
    branch_count: int = 1
    """How many the current window has."""
    window: int = 0
    """The number of windows that have begun."""
    adapters: tuple[AppliedAdapter, ...] = ()
    """Those of the request."""
    position: int = 0
    """The number of positions written so far, which is the index of the next one."""
    _cleared: int = 0
    """The number of positions whose blocks have been cleared."""

    @property
    def rows(self) -> Sequence[KvRow]:
        """The rows of the current window: its branches, then the negative condition."""
        return (*self.branches[: self.branch_count], self.negative)

    def begin_window(self, branch_count: int) -> None:
        """Restarts at position 0 with the same memory."""
        self.position, self.branch_count = 0, branch_count
        self.window += 1

    def prepare(self, end: int) -> None:
        """Makes sure that the positions before `end` can be written."""
        while self._cleared < end:
            for row in (*self.branches, self.negative):
                self.pool.blocks.clear(row.blocks[self._cleared // BLOCK_POSITIONS])
            self._cleared += BLOCK_POSITIONS

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes the next n positions of a layer: keys and values [rows, n, H, D].

        `position` does not change, because the other layers are still to be written.
        """
        end = self.position + keys.shape[1]
        self.prepare(end)
        at = torch.arange(self.position, end)
        for index, row in enumerate(self.rows):
            blocks = torch.tensor(row.blocks)[at // BLOCK_POSITIONS]
            self.pool.blocks.write(layer, blocks, at % BLOCK_POSITIONS, keys[index], values[index])

    def view(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        """Copies of the keys and the values of a layer before `end`: [rows, H, end, D] each."""
        count = block_count(end, BLOCK_POSITIONS)
        rows = [self.pool.blocks.read(layer, torch.tensor(row.blocks[:count])) for row in self.rows]
        keys, values = (torch.stack(part)[:, :, :end] for part in zip(*rows, strict=True))
        return keys, values

    def write_text(self, row: KvRow, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes the text of a layer: [T, H, D] each."""
        at = torch.arange(len(keys))
        blocks = torch.tensor(row.prompt_blocks)[at // PROMPT_BLOCK_TOKENS]
        self.pool.prompt_blocks.write(layer, blocks, at % PROMPT_BLOCK_TOKENS, keys, values)

    def view_text(self, row: KvRow, layer: int) -> tuple[Tensor, Tensor]:
        """Copies of the text's keys and values of a layer: [H, T, D] each."""
        keys, values = self.pool.prompt_blocks.read(layer, torch.tensor(row.prompt_blocks))
        return keys[:, : row.tokens], values[:, : row.tokens]


@dataclass(frozen=True, slots=True)
class BatchReads:
    """What the steps of a batch of B requests read until a request joins, leaves or enters its next block or window.

    The R rows are the first branches of all requests, then their further branches, then their negative conditions:
    first those with a text. So the rows without a text that cross-attention has to skip are mostly the last ones.
    """

    requests: Tensor
    """int64 [R], the request that each row belongs to."""
    branches: Sequence[Sequence[int]]
    """The rows of each request's branches."""
    negatives: Tensor | None
    """int64 [B], the row of each request's negative condition; None if they are the last B rows, in order."""
    write_blocks: Tensor
    """int64 [R], the block of the new position."""
    blocks: BlockReads
    prompts: BlockReads | None
    """For the first rows; None if no row has a text."""
    prompt_mask: Tensor
    """[rows, 1, blocks, tokens]: 0 for the tokens of each text, -inf for the rest of its blocks."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the layers of one step share."""

    reads: BatchReads
    mask: Tensor
    """[R, 1, blocks, positions]: 0 for the positions up to the new one, -inf for the others."""
    write_within: Tensor
    """int64 [R], the index of the new position in its block."""


class KvCachePool:
    """The memory of all requests' caches together, bounded in bytes.

    Its tables are as large as the bound, but the operating system backs only what has been written. The lowest free
    blocks are used first, and the tables are freed when the last cache is released.
    """

    def __init__(self, config: LmConfig, limit_bytes: int, *, is_quantized: bool = False) -> None:
        """`is_quantized` keeps keys and values in 8 bits, except those of prompts."""
        self.limit_bytes = limit_bytes
        kind: type[KvBlocks] = QuantizedKvBlocks if is_quantized else PlainKvBlocks
        shape = (config.num_layers, config.num_heads, config.head_dim)
        self._self = BlockTables(kind, BlockShape(*shape, BLOCK_POSITIONS), limit_bytes)
        self._prompts = BlockTables(PlainKvBlocks, BlockShape(*shape, PROMPT_BLOCK_TOKENS), limit_bytes)
        self._reserved: dict[KvCache, int] = {}
        self._lock = threading.Lock()
        self._batch: Sequence[tuple[KvCache, int, int]] = ()
        """The requests of the last step, their windows, and how many blocks a row of each had."""
        self._reads: BatchReads | None = None
        """What that step read."""

    @property
    def reserved_bytes(self) -> int:
        """The size of all caches that are reserved and not yet released."""
        return sum(tuple(self._reserved.values()))

    @property
    def blocks(self) -> KvBlocks:
        return self._self.tables

    @property
    def prompt_blocks(self) -> KvBlocks:
        return self._prompts.tables

    def size_bytes(self, reservation: Reservation) -> int:
        """The size of a cache, with positions and tokens rounded up to whole blocks."""
        blocks = reservation.rows * block_count(reservation.positions, BLOCK_POSITIONS)
        prompt_blocks = reservation.texts * block_count(reservation.tokens, PROMPT_BLOCK_TOKENS)
        return blocks * self._self.block_bytes + prompt_blocks * self._prompts.block_bytes

    def reserve(self, reservation: Reservation) -> KvCache:
        """Raises ResourceExhausted if the cache does not fit beside those that are already reserved."""
        size = self.size_bytes(reservation)
        with self._lock:
            if self.reserved_bytes + size > self.limit_bytes:
                raise ResourceExhausted(
                    f"the request needs a KV cache of {size >> 20} MiB, but {self.reserved_bytes >> 20} of "
                    f"{self.limit_bytes >> 20} MiB are in use; request a shorter duration, or retry when another "
                    "generation has finished",
                    reason="KV_MEMORY",
                    retry_after_seconds=RETRY_SECONDS,
                )
            self._self.allocate()
            self._prompts.allocate()
            blocks = self._self.take(reservation.rows * block_count(reservation.positions, BLOCK_POSITIONS))
            prompt_blocks = self._prompts.take(reservation.texts * block_count(reservation.tokens, PROMPT_BLOCK_TOKENS))
            # In turn one for each row: they are read in this order.
            rows = [
                KvRow(
                    blocks[index :: reservation.rows],
                    prompt_blocks[index :: reservation.texts] if index < reservation.texts else (),
                )
                for index in range(reservation.rows)
            ]
            cache = KvCache(self, rows[:-1], rows[-1])
            self._reserved[cache] = size
        for block in prompt_blocks:
            self.prompt_blocks.clear(block)
        return cache

    def release(self, cache: KvCache) -> None:
        """Returns the memory to the pool. The cache must not be used again."""
        with self._lock:
            del self._reserved[cache]
            for row in (*cache.branches, cache.negative):
                self._self.give_back(row.blocks)
                self._prompts.give_back(row.prompt_blocks)
            if not self._reserved:
                self._batch, self._reads = (), None
                self._self.free()
                self._prompts.free()

    def plan_step(self, caches: Sequence[KvCache]) -> StepPlan:
        """Plans the step in which each cache grows by one position."""
        for cache in caches:
            cache.prepare(cache.position + 1)
        batch = [(cache, cache.window, cache.position // BLOCK_POSITIONS + 1) for cache in caches]
        if self._reads is None or batch != self._batch:
            self._batch, self._reads = batch, self._plan_reads(caches)
        positions = torch.tensor([cache.position for cache in caches])[self._reads.requests]
        longest = self._reads.blocks.scores.shape[2]
        return StepPlan(self._reads, _mask(positions + 1, longest, BLOCK_POSITIONS), positions % BLOCK_POSITIONS)

    def _plan_reads(self, caches: Sequence[KvCache]) -> BatchReads:
        with_text = list(enumerate(cache.branches[0] for cache in caches))
        branches = [[index] for index in range(len(caches))]
        for index, cache in enumerate(caches):
            for row in cache.branches[1 : cache.branch_count]:
                branches[index].append(len(with_text))
                with_text.append((index, row))
        negatives = sorted(enumerate(cache.negative for cache in caches), key=lambda each: each[1].text is None)
        rows_before = len(with_text)
        with_text += [each for each in negatives if each[1].text is not None]
        rows = with_text + [each for each in negatives if each[1].text is None]
        order = torch.tensor([index for index, _ in negatives]).argsort() + rows_before
        counts = [cache.position // BLOCK_POSITIONS + 1 for cache in caches]
        is_in_order = order.tolist() == list(range(len(caches), 2 * len(caches)))
        prompts, prompt_mask = self._plan_texts([row for _, row in with_text])
        return BatchReads(
            requests=torch.tensor([index for index, _ in rows]),
            branches=branches,
            negatives=None if is_in_order else order,
            write_blocks=torch.tensor([row.blocks[counts[index] - 1] for index, row in rows]),
            blocks=BlockReads.build([row.blocks[: counts[index]] for index, row in rows], 3, self._self.shape),
            prompts=prompts,
            prompt_mask=prompt_mask,
        )

    def _plan_texts(self, rows: Sequence[KvRow]) -> tuple[BlockReads | None, Tensor]:
        if all(row.text is None for row in rows):
            return None, torch.empty(0)
        used = [row.prompt_blocks[: block_count(row.tokens, PROMPT_BLOCK_TOKENS)] for row in rows]
        prompts = BlockReads.build(used, 1, self._prompts.shape)
        longest = prompts.scores.shape[2]
        # A row without a text has no values to sum, so its result is 0. Not masked, its weights are not NaN.
        tokens = torch.tensor([row.tokens or longest * PROMPT_BLOCK_TOKENS for row in rows])
        return prompts, _mask(tokens, longest, PROMPT_BLOCK_TOKENS)


def _mask(lengths: Tensor, longest: int, positions: int) -> Tensor:
    """0 for the first `lengths` positions of each row, -inf for the others: int64 [R] → [R, 1, longest, positions]."""
    hidden = torch.arange(longest * positions).view(longest, positions) >= lengths[:, None, None, None]
    return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
