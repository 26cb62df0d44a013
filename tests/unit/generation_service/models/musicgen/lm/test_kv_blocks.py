# ruff: noqa: E402
"""Attention over blocks of keys and values, against PyTorch's attention over the same positions."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

import torch.nn.functional as F
from torch import Tensor

from generation_service.models.musicgen.lm.kv_blocks import (
    BlockReads,
    BlockShape,
    KvBlocks,
    PlainKvBlocks,
    QuantizedKvBlocks,
)

HEADS = 3
LENGTHS = (1, 31, 32, 33, 64, 100, 5)
"""One block of 32 positions is exactly full, one has a single position, one row has four blocks."""


def fill(blocks: KvBlocks, size: int) -> tuple[list[list[int]], list[tuple[Tensor, Tensor]]]:
    """Writes random keys and values of `LENGTHS` positions. Returns the blocks, and the keys and values: [L, H, D]."""
    generator, free, rows, written = torch.Generator().manual_seed(1), iter(range(100)), [], []
    for length in LENGTHS:
        own = [next(free) for _ in range(-(-length // 32))]
        for block in own:
            blocks.clear(block)
        keys, values = torch.randn(2, length, HEADS, size, generator=generator)
        at = torch.arange(length)
        blocks.write(1, torch.tensor(own)[at // 32], at % 32, keys, values)
        rows.append(own)
        written.append((keys, values))
    return rows, written


@pytest.mark.parametrize(("kind", "tolerance"), [(PlainKvBlocks, 1e-5), (QuantizedKvBlocks, 0.03)])
@pytest.mark.parametrize("size", [16, 64])
def test_attention_over_blocks_equals_attention_over_positions(kind: type, tolerance: float, size: int) -> None:
    shape = BlockShape(layers=2, heads=HEADS, head_dim=size, positions=32)
    blocks = kind(shape, 20)
    rows, written = fill(blocks, size)
    queries = torch.randn(len(rows), HEADS, size, generator=torch.Generator().manual_seed(2))
    reads = BlockReads.build(rows, 1, shape)
    lengths = torch.tensor(LENGTHS)
    hidden = torch.arange(4 * 32).view(4, 32) >= lengths[:, None, None, None]
    mask = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)
    result = blocks.attend(1, queries, reads, mask).view(len(rows), HEADS, size)
    for own, query, (keys, values) in zip(result, queries, written, strict=True):
        expected = F.scaled_dot_product_attention(
            query[:, None], keys.transpose(0, 1), values.transpose(0, 1)
        )  # [H, 1, D]
        torch.testing.assert_close(own, expected[:, 0], atol=tolerance, rtol=0)


@pytest.mark.parametrize(("kind", "levels"), [(PlainKvBlocks, 1e9), (QuantizedKvBlocks, 254)])
def test_what_is_read_is_what_was_written_within_half_a_level(kind: type, levels: float) -> None:
    blocks = kind(BlockShape(layers=2, heads=HEADS, head_dim=64, positions=32), 20)
    rows, written = fill(blocks, 64)
    for own, pair in zip(rows, written, strict=True):
        for actual, expected in zip(blocks.read(1, torch.tensor(own)), pair, strict=True):
            step = 2 * expected.abs().amax(-1, keepdim=True) / levels
            error = actual.transpose(0, 1)[: len(expected)] - expected
            assert (error.abs() <= 0.51 * step + 1e-7).all()


@pytest.mark.parametrize("kind", [PlainKvBlocks, QuantizedKvBlocks])
def test_block_bytes_are_those_of_the_tables(kind: type) -> None:
    shape = BlockShape(layers=2, heads=HEADS, head_dim=64, positions=32)
    blocks = kind(shape, 10)
    tables = [table for name in ("_keys", "_values", "_scales") for table in getattr(blocks, name, [])]
    assert sum(table.nbytes for table in tables) == 10 * kind.block_bytes(shape)
