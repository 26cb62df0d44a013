"""Rows of random queries, keys and values in a paged KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generation_service.models.musicgen.kernels.paged_attention import PAGE_POSITIONS, LayerPages


@dataclass(frozen=True, slots=True)
class PagedRows:
    qkv: Tensor
    """[R, 3, H, D]."""
    pages: LayerPages
    """What no row has written is NaN."""
    table: Tensor
    """int32 [R, P]; the pages are shuffled."""
    lengths: Tensor
    """int64 [R], the positions that are written."""

    def select(self, rows: Sequence[int]) -> PagedRows:
        """Other rows on the same pages."""
        index = torch.tensor(rows, device=self.table.device)
        return PagedRows(self.qkv[index], self.pages, self.table[index], self.lengths[index])

    def copy(self) -> PagedRows:
        pages = LayerPages(self.pages.keys.clone(), self.pages.values.clone())
        return PagedRows(self.qkv, pages, self.table, self.lengths)

    def to(self, device: str) -> PagedRows:
        pages = LayerPages(self.pages.keys.to(device), self.pages.values.to(device))
        return PagedRows(self.qkv.to(device), pages, self.table.to(device), self.lengths.to(device))

    def page_bits(self) -> tuple[Tensor, Tensor]:
        """All keys and values, as bits, so that NaN equals NaN."""
        return self.pages.keys.view(torch.uint8), self.pages.values.view(torch.uint8)


def paged_rows(
    lengths: Sequence[int], heads: int = 2, size: int = 64, *, dtype: torch.dtype, kv_dtype: torch.dtype, spare: int = 1
) -> PagedRows:
    """Rows of these lengths, each with room for `spare` more positions."""
    generator = torch.Generator().manual_seed(1)
    counts = [-(-(length + spare) // PAGE_POSITIONS) for length in lengths]
    ids = torch.randperm(sum(counts), generator=generator) + 1
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    pools = [torch.full((sum(counts) + 1, heads, PAGE_POSITIONS, size), float("nan")) for _ in range(2)]
    for row, (length, pages) in enumerate(zip(lengths, ids.split(counts), strict=True)):
        table[row, : len(pages)] = pages
        for pool in pools:
            padded = torch.full((len(pages) * PAGE_POSITIONS, heads, size), float("nan"))
            padded[:length] = torch.randn(length, heads, size, generator=generator)
            pool[pages] = padded.unflatten(0, (-1, PAGE_POSITIONS)).transpose(1, 2)
    keys, values = (pool.to(kv_dtype) for pool in pools)
    qkv = torch.randn(len(lengths), 3, heads, size, generator=generator).to(dtype)
    return PagedRows(qkv, LayerPages(keys, values), table, torch.tensor(lengths))
