"""Sums of lines of a table, by weights: how attention reads what it has of a request.

`torch.embedding_bag` reads lines as fast as memory can be read; a matrix product of one row, on which attention is
built, takes twice as long.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sum_lines(table: Tensor, lines: Tensor, bags: Tensor, weights: Tensor) -> Tensor:
    """table: [lines, D]; numbers of lines, and their weights: [n], bags of them begin at [m] → sums [m, D]."""
    return torch.embedding_bag(table, lines, bags, False, 0, False, weights)[0]
