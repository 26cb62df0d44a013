"""Weighted sums of table rows, which is how attention reads the KV cache on the CPU.

`torch.embedding_bag` reads rows at memory bandwidth. A matrix product with a single row, on which PyTorch's attention
is built, takes twice as long.
"""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_row_sum(table: Tensor, rows: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    """Sums groups of rows by weight. table: [N, D]; rows (indices) and weights: [n]; offsets: [m] → sums: [m, D].

    Group i has the rows from `offsets[i]` to before `offsets[i + 1]`.
    """
    return torch.embedding_bag(table, rows, offsets, False, 0, False, weights)[0]
