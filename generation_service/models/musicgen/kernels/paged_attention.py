"""Attention over a paged KV cache, in plain PyTorch. It defines what the Triton kernel in `attention_kernel` computes.

The keys and values of a layer are stored in pages of `PAGE_POSITIONS` positions. A row's page table lists its pages, in
order; rows share the pool of pages, but no page. Page 0 belongs to no row: entries of a table that are not in use point
to it, and rows that only fill up a batch write to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PAGE_POSITIONS = 32
"""Positions per page."""


@dataclass(frozen=True, slots=True)
class LayerPages:
    """The pool of pages of one layer."""

    keys: Tensor
    """[pages, H, PAGE_POSITIONS, D]."""
    values: Tensor
    """[pages, H, PAGE_POSITIONS, D]."""


def append_and_attend(
    qkv: Tensor,
    pages: LayerPages,
    table: Tensor,
    positions: Tensor,
    max_positions: int,
    slots: Tensor | None = None,
) -> Tensor:
    """Writes one key and value per row, and attends to all of the row's positions up to this one.

    qkv: [R, 3, H, D]; table: int32 [R, P]; positions: int64 [R], the index of the new position of each row, less than
    `max_positions`, which is static: a multiple of PAGE_POSITIONS, at most P PAGE_POSITIONS. → [R, H D] in fp32.
    slots: int64 [R / 2]; with it, table, [N, 2, P], and positions, [N, 2], are those of N slots, and rows 2 i and
    2 i + 1 are the rows of slot `slots[i]`. Then no kernel of the same step may have written them, or the keys and
    values before the new ones: they may be read while the kernel before this one is running.
    Reads no tensor on the host.
    """
    table, positions = _select_rows(table, positions, slots)
    query, keys, values = qkv.unbind(1)
    append(keys, values, pages, locate(table, positions))
    return attend(query, pages, table, positions + 1, max_positions)


def locate(table: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """The page of each row's position, and its index within the page, [R] each, for `append` in any layer.

    table and positions as in `append_and_attend`.
    """
    page = table.gather(1, (positions // PAGE_POSITIONS)[:, None]).squeeze(1).long()
    return page, positions % PAGE_POSITIONS


def append(keys: Tensor, values: Tensor, pages: LayerPages, places: tuple[Tensor, Tensor]) -> None:
    """Writes one key and value per row. keys, values: [R, H, D]; places: what `locate` returns.

    Rows may share pages, as the positions of one prompt do.
    """
    page, within = places
    pages.keys[page, :, within] = _convert(keys, pages.keys.dtype)
    pages.values[page, :, within] = _convert(values, pages.values.dtype)


def attend(
    query: Tensor,
    pages: LayerPages,
    table: Tensor,
    lengths: Tensor,
    max_positions: int,
    slots: Tensor | None = None,
) -> Tensor:
    """Attends to the first `lengths` positions of each row; the result of a row of length 0 is 0.

    query: [R, H, D]; table: int32 [R, P]; lengths: int64 [R], at most `max_positions`, as in `append_and_attend`, and
    so are `slots`. → [R, H D] in fp32.
    """
    table, lengths = _select_rows(table, lengths, slots)
    rows, heads, size = query.shape
    used = table[:, : max_positions // PAGE_POSITIONS].long()  # [R, n]
    hidden = torch.arange(max_positions, device=query.device) >= lengths[:, None]  # [R, L]
    # Positions that were never written may hold NaN, which a mask of the scores does not hide.
    keys, values = (
        pool[used]
        .transpose(1, 2)
        .reshape(rows, heads, -1, size)
        .to(query.dtype)
        .masked_fill_(hidden[:, None, :, None], 0)
        for pool in (pages.keys, pages.values)
    )  # [R, H, L, D]
    # A row of length 0 attends to all zeros, so that no softmax is over nothing.
    visible = ~hidden | (lengths == 0)[:, None]
    attended = F.scaled_dot_product_attention(query.unsqueeze(2), keys, values, visible[:, None, None])  # [R, H, 1, D]
    return attended.reshape(rows, heads * size).float()


def _select_rows(table: Tensor, positions: Tensor, slots: Tensor | None) -> tuple[Tensor, Tensor]:
    """The tables and the positions of the rows: [R, P], [R]."""
    if slots is None:
        return table, positions
    return table[slots].flatten(0, 1), positions[slots].flatten()


def _convert(new: Tensor, dtype: torch.dtype) -> Tensor:
    """The value as it is stored. What is too large for fp8 becomes its largest; older versions of torch yield NaN."""
    if dtype == torch.float8_e4m3fn:
        largest = torch.finfo(dtype).max
        new = new.float().clamp(-largest, largest)
    return new.to(dtype)
