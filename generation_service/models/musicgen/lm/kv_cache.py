"""The KV cache of a request on the CPU, and the pool of blocks that all requests share."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dgx_music.errors import ResourceExhausted
from generation_service.models.musicgen.checkpoints.config import LmConfig
from generation_service.models.musicgen.code_generator import Reservation
from generation_service.models.musicgen.lm.kv_blocks import (
    BlockReads,
    BlockShape,
    KvBlocks,
    PlainKvBlocks,
    QuantizedKvBlocks,
)
from generation_service.models.musicgen.sampling import CFG_ROWS

BLOCK_POSITIONS = 64
"""Positions per block. Smaller blocks mean shorter rows, each of which costs an index and a weight; larger blocks mean
more unused positions to read and mask."""
PROMPT_BLOCK_TOKENS = 16
"""Tokens per block of a prompt. Most prompts fit into one or two."""
RETRY_SECONDS = 10.0
"""How long a request that found no free memory should wait before it retries."""


@dataclass(eq=False, slots=True)
class KvCache:
    """The blocks of one request, and how many positions are written."""

    pool: KvCachePool
    blocks: Sequence[int]
    """Blocks of `BLOCK_POSITIONS` positions: in turn one for the row with the prompt and one for the other row."""
    prompt_blocks: Sequence[int]
    prompt_tokens: int
    position: int = 0
    """The number of positions written so far, which is the index of the next one."""
    _cleared: int = 0
    """The number of positions whose blocks have been cleared."""

    def rewind(self) -> None:
        """Restarts at position 0 with the same memory and the same prompt."""
        self.position = 0

    def row_blocks(self, row: int, end: int) -> Sequence[int]:
        """The blocks of a row that hold its positions before `end`."""
        return self.blocks[row : CFG_ROWS * _block_count(end, BLOCK_POSITIONS) : CFG_ROWS]

    def prepare(self, end: int) -> None:
        """Makes sure that the positions before `end` can be written."""
        while self._cleared < end:
            first = self._cleared // BLOCK_POSITIONS * CFG_ROWS
            for block in self.blocks[first : first + CFG_ROWS]:
                self.pool.blocks.clear(block)
            self._cleared += BLOCK_POSITIONS

    def append(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes the next n positions of a layer: keys and values [2 (rows), n, H, D].

        `position` does not change, because the other layers are still to be written.
        """
        end = self.position + keys.shape[1]
        self.prepare(end)
        at = torch.arange(self.position, end)
        for row in range(CFG_ROWS):
            blocks = torch.tensor(self.row_blocks(row, end))[at // BLOCK_POSITIONS]
            self.pool.blocks.write(layer, blocks, at % BLOCK_POSITIONS, keys[row], values[row])

    def view(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        """Copies of the keys and the values of a layer before `end`: [2 (rows), H, end, D] each."""
        rows = [self.pool.blocks.read(layer, torch.tensor(self.row_blocks(row, end))) for row in range(CFG_ROWS)]
        keys, values = (torch.stack(part)[:, :, :end] for part in zip(*rows, strict=True))
        return keys, values

    def set_prompt(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Writes the prompt of a layer: [T, H, D] each."""
        at = torch.arange(self.prompt_tokens)
        blocks = torch.tensor(self.prompt_blocks)[at // PROMPT_BLOCK_TOKENS]
        self.pool.prompt_blocks.write(layer, blocks, at % PROMPT_BLOCK_TOKENS, keys, values)

    def view_prompt(self, layer: int) -> tuple[Tensor, Tensor]:
        """Copies of the prompt's keys and values of a layer: [H, T, D] each."""
        keys, values = self.pool.prompt_blocks.read(layer, torch.tensor(self.prompt_blocks))
        return keys[:, : self.prompt_tokens], values[:, : self.prompt_tokens]


@dataclass(frozen=True, slots=True)
class BatchReads:
    """What the steps of a batch read until a request joins, leaves or enters its next block."""

    blocks: BlockReads
    """For the rows with the prompt of all requests, then for those without."""
    prompts: BlockReads | None
    """None if no request has a prompt."""
    prompt_mask: Tensor
    """[B, 1, blocks, positions]: 0 for the tokens of each prompt, -inf for the rest of its blocks."""


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What the layers of one step share. The rows are those with the prompt of all requests, then those without."""

    reads: BatchReads
    mask: Tensor
    """[2 B, 1, blocks, positions]: 0 for the positions up to the new one, -inf for the others."""
    write_blocks: Tensor
    """int64 [2 B], the block of the new position."""
    write_within: Tensor
    """int64 [2 B], its index in the block."""


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
        self._self = _Blocks(kind, BlockShape(*shape, BLOCK_POSITIONS), limit_bytes)
        self._prompts = _Blocks(PlainKvBlocks, BlockShape(*shape, PROMPT_BLOCK_TOKENS), limit_bytes)
        self._reserved: dict[KvCache, int] = {}
        self._lock = threading.Lock()
        self._batch: Sequence[tuple[KvCache, int]] = ()
        """The requests of the last step, and how many blocks a row of each had."""
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
        blocks = CFG_ROWS * _block_count(reservation.positions, BLOCK_POSITIONS)
        prompt_blocks = _block_count(reservation.tokens, PROMPT_BLOCK_TOKENS)
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
            cache = KvCache(
                self,
                self._self.take(CFG_ROWS * _block_count(reservation.positions, BLOCK_POSITIONS)),
                self._prompts.take(_block_count(reservation.tokens, PROMPT_BLOCK_TOKENS)),
                reservation.tokens,
            )
            self._reserved[cache] = size
        for block in cache.prompt_blocks:
            self.prompt_blocks.clear(block)
        return cache

    def release(self, cache: KvCache) -> None:
        """Returns the memory to the pool. The cache must not be used again."""
        with self._lock:
            del self._reserved[cache]
            self._self.give_back(cache.blocks)
            self._prompts.give_back(cache.prompt_blocks)
            if not self._reserved:
                self._batch, self._reads = (), None
                self._self.free()
                self._prompts.free()

    def plan_step(self, caches: Sequence[KvCache]) -> StepPlan:
        """Plans the step in which each cache grows by one position."""
        for cache in caches:
            cache.prepare(cache.position + 1)
        batch = [(cache, cache.position // BLOCK_POSITIONS + 1) for cache in caches]
        if self._reads is None or batch != self._batch:
            self._batch, self._reads = batch, self._plan_reads(caches)
        positions = torch.tensor([cache.position for cache in caches] * CFG_ROWS)
        newest = [cache.blocks[CFG_ROWS * (count - 1) + row] for row in range(CFG_ROWS) for cache, count in batch]
        return StepPlan(
            reads=self._reads,
            mask=_mask(positions + 1, self._reads.blocks.scores.shape[2], BLOCK_POSITIONS),
            write_blocks=torch.tensor(newest),
            write_within=positions % BLOCK_POSITIONS,
        )

    def _plan_reads(self, caches: Sequence[KvCache]) -> BatchReads:
        rows = [cache.row_blocks(row, cache.position + 1) for row in range(CFG_ROWS) for cache in caches]
        blocks = BlockReads.build(rows, 3, self._self.shape)
        if not any(cache.prompt_tokens for cache in caches):
            return BatchReads(blocks, None, torch.empty(0))
        prompts = BlockReads.build([cache.prompt_blocks for cache in caches], 1, self._prompts.shape)
        longest = prompts.scores.shape[2]
        # A request without a prompt has no values to sum, so its result is 0. Not masked, its weights are not NaN.
        tokens = torch.tensor([cache.prompt_tokens or longest * PROMPT_BLOCK_TOKENS for cache in caches])
        return BatchReads(blocks, prompts, _mask(tokens, longest, PROMPT_BLOCK_TOKENS))


class _Blocks:
    """Tables of blocks, and which of them are free."""

    def __init__(self, kind: type[KvBlocks], shape: BlockShape, limit_bytes: int) -> None:
        self.shape = shape
        self.block_bytes = kind.block_bytes(shape)
        self._kind = kind
        self._count = limit_bytes // self.block_bytes
        self._free: list[int] = []
        self._used = 0
        self._tables: KvBlocks | None = None

    @property
    def tables(self) -> KvBlocks:
        assert self._tables is not None, "no cache is reserved"
        return self._tables

    def allocate(self) -> None:
        """Allocates the tables, unless they are. Raises MemoryError if the system does not have as much memory."""
        if self._tables is not None:
            return
        try:
            with torch.inference_mode(False):  # So that they can be written in any mode.
                self._tables = self._kind(self.shape, self._count)
        except RuntimeError as error:  # torch raises this if the system has no memory left.
            raise MemoryError(f"failed to allocate {self._count * self.block_bytes >> 20} MiB for KV caches") from error

    def take(self, count: int) -> list[int]:
        """The lowest free blocks. The caller has made sure that there are as many."""
        for _ in range(count - len(self._free)):
            heapq.heappush(self._free, self._used)
            self._used += 1
        return [heapq.heappop(self._free) for _ in range(count)]

    def give_back(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            heapq.heappush(self._free, block)

    def free(self) -> None:
        """Frees the tables. No block is in use."""
        self._free, self._used, self._tables = [], 0, None


def _block_count(positions: int, block_positions: int) -> int:
    return -(-positions // block_positions)


def _mask(lengths: Tensor, longest: int, positions: int) -> Tensor:
    """0 for the first `lengths` positions of each row, -inf for the others: int64 [R] → [R, 1, longest, positions]."""
    hidden = torch.arange(longest * positions).view(longest, positions) >= lengths[:, None, None, None]
    return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
