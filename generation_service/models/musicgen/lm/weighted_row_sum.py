"""Weighted sums of table rows, which is how attention reads keys and values on the CPU.

`torch.embedding_bag` reads rows at memory bandwidth. A matrix product with a single row, on which PyTorch's attention
is built, takes twice as long.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_row_sum(table: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Sums groups of rows by weight. table: [N, D]; rows (indices) and weights: [n]; offsets: [m + 1] → sums: [m, D].

    Group i has the rows from `offsets[i]` to before `offsets[i + 1]`. The sum of an empty group is 0.
    """
    return torch.embedding_bag(table, rows, offsets, False, 0, False, weights, True)[0]


def quantized_weighted_row_sum(table: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """The same for rows in 8 bits, summed in fp32. table: uint8 [N, D + 8]; a row ends with its scale and its bias."""
    sums: Tensor = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        table, rows, offsets, False, 0, False, weights, None, True
    )
    return sums
