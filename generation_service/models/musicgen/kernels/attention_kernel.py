"""Attention over a paged KV cache as one Triton kernel: the same functions as `paged_attention`, for NVIDIA GPUs.

A row's keys are split into runs of `SPLIT_POSITIONS`; one program attends with one head to one run, so that a single
request keeps a whole GPU busy, and a full batch too. The last program of a row and head to finish combines the results
of all (Dao et al. 2023, "Flash-Decoding"); it knows that it is the last by counting arrivals.

Each row's result is the same bit for bit whatever else is in the batch, in whichever row, and whatever
`max_positions`: the runs start at multiples of a constant, they are combined in their order whoever does it, and one
compiled kernel serves all batch sizes and lengths.
"""

# Triton's decorator and the functions that it compiles have no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary
from triton import knobs
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from generation_service.models.musicgen.kernels.paged_attention import PAGE_POSITIONS, LayerPages
from generation_service.models.musicgen.sampling import CFG_ROWS

SPLIT_POSITIONS = 128
"""Positions per program: 32 KB of bf16 keys and values, all of which are requested before the first is used. Fewer cost
more for combining, more leave SMs idle when one request decodes alone."""
_WARPS = 4
"""Each thread holds 64 numbers of the keys and 64 of the values, if a head has 64 channels."""
_MAX_SPLITS_AT_ONCE = 16
"""Results combined in one go: 2,048 positions; a longer row takes several."""


def append_and_attend(
    qkv: Tensor,
    pages: LayerPages,
    table: Tensor,
    positions: Tensor,
    max_positions: int,
    slots: Tensor | None = None,
    *,
    pdl: bool = False,
) -> Tensor:
    """See `paged_attention.append_and_attend`. pdl: programmatic dependent launch, as the package explains."""
    rows, _, heads, size = qkv.shape
    return _launch(qkv, pages, table, positions, max_positions, slots, (rows, heads, size), is_append=True, pdl=pdl)


def attend(
    query: Tensor,
    pages: LayerPages,
    table: Tensor,
    lengths: Tensor,
    max_positions: int,
    slots: Tensor | None = None,
    *,
    pdl: bool = False,
) -> Tensor:
    """See `paged_attention.attend`. pdl: as in `append_and_attend`."""
    rows, heads, size = query.shape
    return _launch(query, pages, table, lengths, max_positions, slots, (rows, heads, size), is_append=False, pdl=pdl)


def _launch(
    query: Tensor,
    pages: LayerPages,
    table: Tensor,
    positions: Tensor,
    max_positions: int,
    slots: Tensor | None,
    shape: tuple[int, int, int],
    *,
    is_append: bool,
    pdl: bool,
) -> Tensor:
    strided = () if slots is not None else (("positions", positions),)
    for name, tensor in (("keys", pages.keys), ("values", pages.values), ("table", table), *strided):
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, but has the strides {tensor.stride()}")
    rows, heads, size = shape
    if query[0].stride() != query[0].contiguous().stride():
        query = query.contiguous()
    splits = triton.cdiv(max_positions, SPLIT_POSITIONS)
    partial = torch.empty(rows, heads, splits, size, device=query.device)
    log_sums = torch.empty(rows, heads, splits, device=query.device)
    result = torch.empty(rows, heads * size, device=query.device)
    slot_stride, row_stride = (0, 0) if slots is None else positions.stride()
    _attention[heads, splits, rows](
        query,
        pages.keys,
        pages.values,
        table,
        positions,
        positions if slots is None else slots,
        partial,
        log_sums,
        _arrivals(pages, rows * heads),
        result,
        table.shape[-1],
        splits,
        query_stride=query.stride(0),
        # The kernel uses powers of two.
        scale=math.log2(math.e) / math.sqrt(size),
        is_append=is_append,
        by_slot=slots is not None,
        rows_per_slot=CFG_ROWS,
        slot_stride=slot_stride,
        row_stride=row_stride,
        heads=heads,
        size=size,
        page_positions=PAGE_POSITIONS,
        split_positions=SPLIT_POSITIONS,
        max_splits_at_once=_MAX_SPLITS_AT_ONCE,
        pdl=pdl and not knobs.runtime.interpret,
        num_warps=_WARPS,
        launch_pdl=pdl,
    )
    return result


_counters: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""The keys of a layer → number of counters → the counters. Launches that share counters must not overlap; those that
share a pool of pages can't, because they read what the other writes. A captured CUDA graph keeps using the counters
that it was captured with, so they live as long as the pool."""


def _arrivals(pages: LayerPages, count: int) -> Tensor:
    """int32 [count], all 0 between two launches: each launch leaves them as it found them."""
    counters: dict[int, Tensor] | None = _counters.get(pages.keys)  # type: ignore[no-untyped-call]
    if counters is None:
        counters = _counters[pages.keys] = {}
    if count not in counters:
        # A graph would only set them to 0 when it is replayed, and other graphs may run first.
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(f"run attention once with {count} heads in all rows before it is captured in a graph")
        counters[count] = torch.zeros(count, dtype=torch.int32, device=pages.keys.device)
    return counters[count]


# Integer arguments are not specialized, so that one compiled kernel serves all batch sizes, lengths and tables.
@triton.jit(do_not_specialize=["table_width", "splits"])
def _attention(
    query,
    keys,
    values,
    table,
    positions,
    slots,
    partial,
    log_sums,
    arrivals,
    result,
    table_width,
    splits,
    query_stride: tl.constexpr,
    scale: tl.constexpr,
    is_append: tl.constexpr,
    by_slot: tl.constexpr,
    rows_per_slot: tl.constexpr,
    slot_stride: tl.constexpr,
    row_stride: tl.constexpr,
    heads: tl.constexpr,
    size: tl.constexpr,
    page_positions: tl.constexpr,
    split_positions: tl.constexpr,
    max_splits_at_once: tl.constexpr,
    pdl: tl.constexpr,
):
    if pdl:
        gdc_launch_dependents()
    head, split, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    span = split * split_positions + tl.arange(0, split_positions)
    channels = tl.arange(0, size)
    if by_slot:
        slot = tl.load(slots + row // rows_per_slot)
        table += (slot * rows_per_slot + row % rows_per_slot) * table_width
        positions += slot * slot_stride + row % rows_per_slot * row_stride
    else:
        if pdl:
            gdc_wait()
        table += row * table_width
        positions += row
    # The first loads don't wait for each other: none is masked by the length that another loads.
    # `stored` is the number of positions whose keys are in memory; with `is_append`, also the index of the new one.
    stored = tl.load(positions).to(tl.int32)
    page = tl.load(table + span // page_positions, mask=span // page_positions < table_width, other=0)
    length = stored + 1 if is_append else stored
    if split > 0 and split * split_positions >= length:
        if pdl and by_slot:
            gdc_wait()
        return
    if is_append:
        new_page = tl.load(table + stored // page_positions)
    # A pool can have more than 2^31 elements.
    offsets = ((page.to(tl.int64) * heads + head) * page_positions + span % page_positions)[:, None] * size + channels
    key = tl.load(keys + offsets, mask=(span < stored)[:, None], other=0.0)  # [split_positions, size]
    value = tl.load(values + offsets, mask=(span < stored)[:, None], other=0.0)
    if pdl and by_slot:
        gdc_wait()  # Everything above was written by earlier steps. The query is this step's.
    query += row * query_stride + head * size + channels
    queries = tl.load(query).to(tl.float32) * scale
    if is_append:
        new_key = tl.load(query + heads * size).to(keys.dtype.element_ty)
        new_value = tl.load(query + 2 * heads * size).to(values.dtype.element_ty)

    scores = tl.sum(key.to(tl.float32) * queries[None, :], 1)
    scores = tl.where(span < stored, scores, float("-inf"))
    highest = tl.max(scores, 0)
    if is_append:
        # The new key and value are used from registers: reading them back would race with the store.
        is_here = split == stored // split_positions
        offset = ((new_page.to(tl.int64) * heads + head) * page_positions + stored % page_positions) * size + channels
        tl.store(keys + offset, new_key, mask=is_here)
        tl.store(values + offset, new_value, mask=is_here)
        new_score = tl.where(is_here, tl.sum(new_key.to(tl.float32) * queries, 0), float("-inf"))
        highest = tl.maximum(highest, new_score)
    weights = tl.exp2(scores - highest)
    total = tl.sum(weights, 0)
    attended = tl.sum(weights[:, None] * value.to(tl.float32), 0)
    if is_append:
        new_weight = tl.exp2(new_score - highest)
        total += new_weight
        attended += new_weight * new_value.to(tl.float32)
    attended /= total
    attended = tl.where(length > 0, attended, 0.0)

    program = row * heads + head
    result += program * size + channels
    if length <= split_positions:
        tl.store(result, attended)
    else:
        log_sums += program * splits
        partial += program * splits * size
        tl.store(log_sums + split, highest + tl.log2(total))
        tl.store(partial + split * size + channels, attended)
        # All threads have stored before the one that counts does so.
        tl.debug_barrier()
        count = tl.cdiv(length, split_positions)
        if tl.atomic_add(arrivals + program, 1, sem="acq_rel", scope="gpu") == count - 1:
            tl.store(arrivals + program, 0)
            tl.store(result, _combine(partial, log_sums, count, channels, size, max_splits_at_once))


@triton.jit
def _combine(partial, log_sums, count, channels, size: tl.constexpr, at_once: tl.constexpr):
    """The mean of `count` results, weighted by their sums of exponentials, whose log2 is given → [size]."""
    attended = tl.zeros([size], tl.float32)
    total = 0.0
    highest = float("-inf")
    for first in range(0, count, at_once):
        split = first + tl.arange(0, at_once)
        # Past the first-level cache, which another SM's store doesn't reach.
        logs = tl.load(log_sums + split, mask=split < count, other=float("-inf"), cache_modifier=".cg")
        parts = tl.load(
            partial + split[:, None] * size + channels, mask=(split < count)[:, None], other=0.0, cache_modifier=".cg"
        )
        new_highest = tl.maximum(highest, tl.max(logs, 0))
        rescale = tl.exp2(highest - new_highest)
        weights = tl.exp2(logs - new_highest)
        attended = attended * rescale + tl.sum(weights[:, None] * parts, 0)
        total = total * rescale + tl.sum(weights, 0)
        highest = new_highest
    return attended / total
