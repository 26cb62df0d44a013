"""Tables of blocks of keys and values, and which of them are free."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch

from generation_service.models.musicgen.lm.kv_blocks import BlockShape, KvBlocks


class BlockTables:
    """Allocated as a whole; the lowest free blocks are used first."""

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


def block_count(positions: int, block_positions: int) -> int:
    return -(-positions // block_positions)
