"""Keys and values of all requests on the CPU, in blocks of positions, and attention over them.

At long positions most of a step's time is spent reading keys and values, so they are laid out for sequential reading:
for every head of a block, the values have a row per position, and the keys have a row per channel. The scores of a
query are then a sum of key rows weighted by the query, just as the output of attention is a sum of value rows weighted
by the softmax. Both are bags of `weighted_row_sum`, one call each for all requests. A bag's sum does not depend on the
other bags, so the result of a request is the same, to the last bit, whatever other requests share the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from generation_service.models.musicgen.lm.weighted_row_sum import quantized_weighted_row_sum, weighted_row_sum

_TRAILER_BYTES = 8
"""A quantised row ends with its scale and its bias, both fp32."""


@dataclass(frozen=True, slots=True)
class BlockShape:
    """The dimensions of the blocks of a `KvBlocks`."""

    layers: int
    heads: int
    head_dim: int
    positions: int


@dataclass(frozen=True, slots=True)
class BlockReads:
    """The blocks that each of R rows attends to, as arguments of `weighted_row_sum`. n: the blocks of all rows · heads.

    Blocks are read in the order of rows, then blocks, then heads, which is their order in memory: that takes half the
    time of reading them head by head.
    """

    scores: Tensor
    """[R, H, longest, positions], a buffer. `longest` is the largest number of blocks of a row."""
    queries: Tensor | None
    """int64 [n], which of the `R parts H` vectors of the projection [R, parts, H, D] each block is scored with; None
    if it is each of them once, in order."""
    key_rows: Tensor
    """int32 [n D]."""
    key_offsets: Tensor
    """int32 [R longest H + 1]. Bags in place of blocks that a row lacks are empty."""
    scales: Tensor
    """int64 [R longest H], the block · head that each bag of keys belongs to; 0 for an empty bag."""
    value_rows: Tensor
    """int32 [n positions]."""
    value_offsets: Tensor
    """int32 [n + 1]."""
    weights: Tensor
    """int64 [n], which of the `R H longest` rows of weights belongs to each block."""
    parts: Tensor
    """int32 [n], the blocks in the order of rows, then heads: those whose sums of values are to be added."""
    part_offsets: Tensor
    """int32 [R H + 1]."""
    is_single: bool
    """Whether every row has exactly one block, so that no order matters, and nothing is to be added."""

    @classmethod
    def build(cls, rows: Sequence[Sequence[int]], parts: int, shape: BlockShape) -> BlockReads:
        """`rows` has the blocks of each row. `parts` is 3 for queries that lie beside keys and values, else 1."""
        heads, size, positions = shape.heads, shape.head_dim, shape.positions
        counts = torch.tensor([len(blocks) for blocks in rows])
        longest = max(1, int(counts.max()))
        blocks = torch.tensor([[*own, *[-1] * (longest - len(own))] for own in rows])[:, :, None]  # [R, longest, 1]
        row, block, head = torch.arange(len(rows))[:, None, None], torch.arange(longest)[:, None], torch.arange(heads)
        is_present = (blocks >= 0).expand(-1, -1, heads)  # [R, longest, H]
        units = (blocks * heads + head)[is_present]  # [n]
        order = torch.full(is_present.shape, -1)
        order[is_present] = torch.arange(len(units))
        parts_by_head = order.transpose(1, 2)  # [R, H, longest]
        is_single = bool((counts == 1).all())
        queries = (row * (parts * heads) + head).expand_as(is_present)[is_present]
        return cls(
            scores=torch.empty(len(rows), heads, longest, positions),
            queries=None if is_single and parts == 1 else queries,
            key_rows=(units[:, None] * size + torch.arange(size)).view(-1).int(),
            key_offsets=_offsets(is_present.reshape(-1) * size),
            scales=(blocks.clamp_min(0) * heads + head).view(-1),
            value_rows=(units[:, None] * positions + torch.arange(positions)).view(-1).int(),
            value_offsets=_offsets(torch.full((len(units),), positions)),
            weights=((row * heads + head) * longest + block)[is_present],
            parts=parts_by_head[parts_by_head >= 0].int(),
            part_offsets=_offsets(counts.repeat_interleave(heads)),
            is_single=is_single,
        )


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int()


class KvBlocks(Protocol):
    """`count` blocks of keys and values of `shape`, in each layer. Memory that is never written takes no space."""

    def __init__(self, shape: BlockShape, count: int) -> None: ...

    @staticmethod
    def block_bytes(shape: BlockShape) -> int:
        """The size of one block in all layers."""
        ...

    def clear(self, block: int) -> None:
        """Prepares a block for its first position. What is not written yet is read with a weight of 0."""
        ...

    def write(self, layer: int, blocks: Tensor, within: Tensor, keys: Tensor, values: Tensor) -> None:
        """Writes n positions. blocks and within (the position in the block): int64 [n]; keys and values: [n, H, D]."""
        ...

    def read(self, layer: int, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and the values in consecutive blocks, in fp32. blocks: int64 [m] → [H, m positions, D] each."""
        ...

    def attend(self, layer: int, queries: Tensor, reads: BlockReads, mask: Tensor) -> Tensor:
        """queries: contiguous [R, parts, H, D]; mask, added to the scores: [R, 1, longest, positions]. → [R, H D]."""
        ...


class PlainKvBlocks(KvBlocks):
    """In fp32."""

    def __init__(self, shape: BlockShape, count: int) -> None:
        self._shape = shape
        units = count * shape.heads
        self._keys = [torch.empty(units * shape.head_dim, shape.positions) for _ in range(shape.layers)]
        """Per layer, a row for each (block, head, channel)."""
        self._values = [torch.empty(units * shape.positions, shape.head_dim) for _ in range(shape.layers)]
        """Per layer, a row for each (block, head, position)."""
        self._key_blocks = [_blocks(table, shape.heads, shape.head_dim) for table in self._keys]
        self._value_blocks = [_blocks(table, shape.heads, shape.positions) for table in self._values]

    @staticmethod
    def block_bytes(shape: BlockShape) -> int:
        return shape.layers * shape.heads * 2 * shape.positions * shape.head_dim * torch.float32.itemsize

    def clear(self, block: int) -> None:
        for keys, values in zip(self._key_blocks, self._value_blocks, strict=True):
            keys[block].zero_()
            values[block].zero_()

    def write(self, layer: int, blocks: Tensor, within: Tensor, keys: Tensor, values: Tensor) -> None:
        self._key_blocks[layer][blocks, :, :, within] = keys
        self._value_blocks[layer][blocks, :, within] = values

    def read(self, layer: int, blocks: Tensor) -> tuple[Tensor, Tensor]:
        keys = self._key_blocks[layer][blocks].permute(1, 0, 3, 2)
        return keys.flatten(1, 2), self._value_blocks[layer][blocks].transpose(0, 1).flatten(1, 2)

    def attend(self, layer: int, queries: Tensor, reads: BlockReads, mask: Tensor) -> Tensor:
        weights = _query_weights(queries, reads)
        scores = weighted_row_sum(self._keys[layer], reads.key_rows, reads.key_offsets, weights)
        torch.add(mask, _by_head(scores, reads), alpha=queries.shape[-1] ** -0.5, out=reads.scores)
        weights = _value_weights(reads)
        return _add_parts(weighted_row_sum(self._values[layer], reads.value_rows, reads.value_offsets, weights), reads)


class QuantizedKvBlocks(KvBlocks):
    """In 8 bits, with a scale for the key and for the value of each position and head.

    Keys are quantised symmetrically: a key is `scale · (byte - 127.5)`. The bytes of a row of keys belong to different
    positions, so the scales are applied to the scores. Values are quantised from their minimum to their maximum.
    """

    _KEY_TRAILER = (1.0, -127.5)

    def __init__(self, shape: BlockShape, count: int) -> None:
        self._shape = shape
        units = count * shape.heads
        key_bytes, value_bytes = shape.positions + _TRAILER_BYTES, shape.head_dim + _TRAILER_BYTES

        def tables(rows: int, width: int) -> list[Tensor]:
            return [torch.empty(units * rows, width, dtype=torch.uint8) for _ in range(shape.layers)]

        self._keys = tables(shape.head_dim, key_bytes)
        self._values = tables(shape.positions, value_bytes)
        self._scales = [torch.empty(units, shape.positions) for _ in range(shape.layers)]
        """Per layer, the scale of each key: a row for each (block, head)."""
        self._key_blocks = [_blocks(table, shape.heads, shape.head_dim) for table in self._keys]
        self._value_blocks = [_blocks(table, shape.heads, shape.positions) for table in self._values]
        self._value_words = [blocks.view(torch.int64) for blocks in self._value_blocks]
        """The same memory in words of 8 bytes, of which fewer are to be copied."""
        self._scale_blocks = [scales.view(-1, shape.heads, shape.positions) for scales in self._scales]
        self._trailer = torch.tensor(self._KEY_TRAILER).view(torch.uint8)

    @staticmethod
    def block_bytes(shape: BlockShape) -> int:
        keys = shape.head_dim * (shape.positions + _TRAILER_BYTES) + shape.positions * torch.float32.itemsize
        return shape.layers * shape.heads * (keys + shape.positions * (shape.head_dim + _TRAILER_BYTES))

    def clear(self, block: int) -> None:
        for keys, values, scales in zip(self._key_blocks, self._value_blocks, self._scale_blocks, strict=True):
            keys[block].zero_()
            keys[block, :, :, -_TRAILER_BYTES:] = self._trailer
            values[block].zero_()
            scales[block].zero_()

    def write(self, layer: int, blocks: Tensor, within: Tensor, keys: Tensor, values: Tensor) -> None:
        size, heads = self._shape.head_dim, self._shape.heads
        # The range of a key and its negative is symmetric.
        packed = _quantize_rows(torch.cat([keys, -keys], -1).view(-1, 2 * size)).view(-1, heads, 2 * size + 8)
        self._key_blocks[layer][blocks, :, :, within] = packed[..., :size]
        self._scale_blocks[layer][blocks, :, within] = packed[..., 2 * size :].view(torch.float32)[..., 0]
        rows = _quantize_rows(values.reshape(-1, size)).view(torch.int64).view(len(values), heads, -1)
        self._value_words[layer][blocks, :, within] = rows

    def read(self, layer: int, blocks: Tensor) -> tuple[Tensor, Tensor]:
        shape = self._shape
        keys = self._key_blocks[layer][blocks][..., : shape.positions].float().sub_(127.5)  # [m, H, D, positions]
        keys.mul_(self._scale_blocks[layer][blocks].unsqueeze(2))
        values = torch.ops.quantized.embedding_bag_byte_unpack(
            self._value_blocks[layer][blocks].view(-1, shape.head_dim + _TRAILER_BYTES)
        ).view(-1, shape.heads, shape.positions, shape.head_dim)
        return keys.permute(1, 0, 3, 2).flatten(1, 2), values.transpose(0, 1).flatten(1, 2)

    def attend(self, layer: int, queries: Tensor, reads: BlockReads, mask: Tensor) -> Tensor:
        weights = _query_weights(queries, reads)
        scores = quantized_weighted_row_sum(self._keys[layer], reads.key_rows, reads.key_offsets, weights)
        scales = self._scales[layer].index_select(0, reads.scales)
        scale = queries.shape[-1] ** -0.5
        torch.addcmul(mask, _by_head(scores, reads), _by_head(scales, reads), value=scale, out=reads.scores)
        weights = _value_weights(reads)
        sums = quantized_weighted_row_sum(self._values[layer], reads.value_rows, reads.value_offsets, weights)
        return _add_parts(sums, reads)


def _blocks(table: Tensor, heads: int, rows: int) -> Tensor:
    """A table as [blocks, H, rows, width]."""
    return table.view(-1, heads, rows, table.shape[1])


def _quantize_rows(x: Tensor) -> Tensor:
    """[n, m] → uint8 [n, m + 8]: the bytes, the scale and the bias of each row."""
    packed: Tensor = torch.ops.quantized.embedding_bag_byte_prepack(x)
    return packed


def _query_weights(queries: Tensor, reads: BlockReads) -> Tensor:
    """The weights of all rows of keys that are read: [n D]."""
    if reads.queries is None:
        return queries.view(-1)
    return queries.view(-1, queries.shape[-1]).index_select(0, reads.queries).view(-1)


def _by_head(bags: Tensor, reads: BlockReads) -> Tensor:
    """[R longest H, positions] → [R, H, longest, positions], as `reads.scores`."""
    rows, heads, longest, positions = reads.scores.shape
    return bags.view(rows, longest, heads, positions).transpose(1, 2)


def _value_weights(reads: BlockReads) -> Tensor:
    """The softmax of the scores of all values that are read: [n positions]."""
    positions = reads.scores.shape[-1]
    weights = reads.scores.flatten(2).softmax(-1).view(-1, positions)
    return (weights if reads.is_single else weights.index_select(0, reads.weights)).view(-1)


def _add_parts(sums: Tensor, reads: BlockReads) -> Tensor:
    """The sums of all blocks, [n, D] → those of all rows, [R, H D]."""
    if not reads.is_single:
        sums = torch.embedding_bag(sums, reads.parts, reads.part_offsets, False, 0, False, None, True)[0]
    return sums.view(reads.scores.shape[0], -1)
