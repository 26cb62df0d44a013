"""Encodes token sequences of any length in batches of fixed shapes, so that no sequence changes the result of another.

Libraries choose the kernel of a matrix product, and so its rounding, by its shape. Here the shape depends on nothing
but the sequence's own length: it is padded to the next power of two, and the batch is filled up to a number of rows
that goes with that length. Padded tokens are masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MIN_TOKENS = 16
MAX_ROWS = 16
MAX_BATCH_TOKENS = 2048
"""Tokens of a batch, padding included. Only a sequence that is longer, in a batch of its own, exceeds it."""

Encode = Callable[[Tensor, Tensor], Tensor]
"""Token ids and attention mask, int64 [B, T] → the encoded tokens, [B, T, dim]."""


def padded_shape(tokens: int) -> tuple[int, int]:
    """Returns the rows and the tokens of the batch in which a sequence of `tokens` tokens is encoded."""
    width = max(MIN_TOKENS, 1 << (tokens - 1).bit_length())
    return max(1, min(MAX_ROWS, MAX_BATCH_TOKENS // width)), width


class PaddedBatches:
    """Runs an encoder on batches of fixed shapes. One call at a time."""

    def __init__(self, encode: Encode, device: torch.device) -> None:
        self._encode = encode
        self._device = device
        self._rows: dict[int, int] = {}
        """Width → rows of its batches."""

    def encode(self, sequences: Sequence[Sequence[int]]) -> list[Tensor]:
        """Returns the encoding of each sequence of at least one token id, [T, dim], without its padding."""
        results: dict[int, Tensor] = {}
        widths = [padded_shape(len(sequence))[1] for sequence in sequences]
        for width in sorted(set(widths)):
            members = [index for index, own_width in enumerate(widths) if own_width == width]
            rows = self._choose_rows(sequences[members[0]])
            for start in range(0, len(members), rows):
                batch = members[start : start + rows]
                encoded = self._run([sequences[index] for index in batch], rows, width)
                for row, index in enumerate(batch):
                    # A view would keep the whole batch in memory.
                    results[index] = encoded[row, : len(sequences[index])].clone()
        return [results[index] for index in range(len(sequences))]

    def _choose_rows(self, sequence: Sequence[int]) -> int:
        """Returns the rows for the width of this sequence; one if the encoder's rounding depends on the row."""
        rows, width = padded_shape(len(sequence))
        if width not in self._rows:
            encoded = self._run([sequence] * rows, rows, width)[:, : len(sequence)]
            self._rows[width] = rows if torch.equal(encoded, encoded[:1].expand_as(encoded)) else 1
        return self._rows[width]

    def _run(self, sequences: Sequence[Sequence[int]], rows: int, width: int) -> Tensor:
        """Returns [rows, width, dim]."""
        tokens = torch.zeros(rows, width, dtype=torch.int64)
        mask = torch.zeros(rows, width, dtype=torch.int64)
        mask[:, 0] = 1  # A row without any token would be NaN.
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        return self._encode(tokens.to(self._device), mask.to(self._device))
