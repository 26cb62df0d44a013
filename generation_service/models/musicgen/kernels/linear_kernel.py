"""A linear layer as one Triton kernel, with what stands before and after it: y = f(norm(x) Wᵀ · scale) + residual.

A row's result is the same, to the last bit, whatever other rows there are and wherever it stands. The inputs of a layer
are split among the `SPLITS` warps of a program, in a way that depends only on how many they are. Each warp adds its
products in the order of the inputs, 16 at a time, and at the end the sums of the warps are added. Such a step of 16 is
one tensor core instruction, mma.m16n8k16. The ISA leaves open in which order that adds, but it is the same instruction
for every element of every tile: 16 outputs × 8 rows are the smallest piece of a tile. So the size of a tile decides
only how many of them a program computes, and may depend on the number of rows. (Hopper's wgmma has one instruction per
tile width, so all batches would need the same width: the work of 64 rows for a single request. For Triton to use mma,
the warps are the batch dimension of the product.) Rows beyond the last are loaded as zeros, and are not stored.

Reading the weights is what takes the time for few rows, so a program has few outputs and many programs run: no second
pass over partial sums, no workspace and no atomics are needed. For many rows wide tiles spare the L2 cache.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from generation_service.models.musicgen.kernels.quantized_weights import StoredWeights

SPLITS = 4
"""The number of warps, each of which sums a share of the inputs."""
_FEW_ROWS, _MANY_ROWS = 8, 32
"""Rows of a tile. 8 rows are 4 requests with guidance."""
_TILE_OUTPUTS = {_FEW_ROWS: (32, 16), _MANY_ROWS: (64, 32, 16)}
_MIN_PROGRAMS = 120
"""Enough to occupy nine tenths of the 132 streaming multiprocessors of an H100 or H200."""
_PIPELINE_BYTES = 72 << 10
"""Shared memory for loads that are under way. A program may have 99 KiB on a GB10; an H200 holds two or three."""
_MAX_STAGES = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """The rows and outputs that one program computes, and the inputs that a warp of it loads at a time."""

    rows: int
    outputs: int
    inputs: int
    stages: int
    """How many loads are under way, plus one."""


def choose_tile(rows: int, weights: Tensor, x_bytes: int) -> Tile:
    """Affects only the speed. weights: [out, in]; x_bytes: the size of an element of x."""
    tile_rows, tile_inputs = (_FEW_ROWS, 64) if rows <= _FEW_ROWS else (_MANY_ROWS, 32)
    *larger, outputs = _TILE_OUTPUTS[tile_rows]
    if weights.dtype == torch.float32:
        tile_inputs = 32  # No tensor core multiplies fp32, and larger tiles would need more registers than there are.
    else:
        row_tiles = triton.cdiv(rows, tile_rows)
        fitting = (n for n in larger if triton.cdiv(len(weights), n) * row_tiles >= _MIN_PROGRAMS)
        outputs = next(fitting, outputs)
    loaded = SPLITS * tile_inputs * (outputs * weights.element_size() + tile_rows * x_bytes)
    return Tile(tile_rows, outputs, tile_inputs, min(_MAX_STAGES, _PIPELINE_BYTES // loaded + 1))


def fused_linear(
    x: Tensor,
    weights: StoredWeights,
    *,
    norm: tuple[Tensor, Tensor, float] | None = None,
    gelu: bool = False,
    residual: Tensor | None = None,
    pdl: bool = False,
) -> Tensor:
    """x: fp32 or bf16 [rows, in] → [rows, out].

    norm: the weight and the bias, fp32 [in], and the epsilon of a layer normalization of x, which is then fp32. The
    result is fp32; with `gelu`, which is the exact one, it is in the type of the product, as the next layer needs it.
    residual: fp32 [rows, out]. The rows of x and of the residual may be apart, as in x[0::2].
    pdl: programmatic dependent launch, as the package explains: the kernel asks for its weights before it waits.
    """
    values = weights.values
    (rows, inputs), outputs = x.shape, len(values)
    dtype = weights.product_dtype if gelu else torch.float32
    y = torch.empty(rows, outputs, dtype=dtype, device=x.device)
    norm_weight, norm_bias, epsilon = norm or (x, x, 0.0)
    tile = choose_tile(rows, values, x.element_size())
    # Programs that share weights are next to each other, so that the L2 cache serves all but the first.
    _linear[(triton.cdiv(rows, tile.rows), triton.cdiv(outputs, tile.outputs))](
        x,
        values,
        values if weights.scale is None else weights.scale,
        norm_weight,
        norm_bias,
        y if residual is None else residual,
        y,
        rows,
        outputs,
        inputs,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        y.stride(0),
        epsilon,
        NORM=norm is not None,
        GELU=gelu,
        SCALED=weights.scale is not None,
        RESIDUAL=residual is not None,
        EVEN=inputs % (SPLITS * 64) == 0,
        ROWS=tile.rows,
        OUTPUTS=tile.outputs,
        INPUTS=tile.inputs,
        SPLITS=SPLITS,
        PRODUCT=tl.float32 if weights.product_dtype == torch.float32 else tl.bfloat16,
        PREFETCH=(pdl or norm is not None) and not knobs.runtime.interpret,
        PDL=pdl and not knobs.runtime.interpret,
        num_warps=SPLITS,
        num_stages=tile.stages,
        launch_pdl=pdl,
    )
    return y


@triton.jit(do_not_specialize=["rows"])
def _linear(
    x_ptr,
    weight_ptr,
    scale_ptr,
    norm_weight_ptr,
    norm_bias_ptr,
    residual_ptr,
    y_ptr,
    rows,
    outputs,
    inputs,
    x_stride,
    residual_stride,
    y_stride,
    epsilon,
    NORM: tl.constexpr,
    GELU: tl.constexpr,
    SCALED: tl.constexpr,
    RESIDUAL: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    INPUTS: tl.constexpr,
    SPLITS: tl.constexpr,
    PRODUCT: tl.constexpr,
    PREFETCH: tl.constexpr,
    PDL: tl.constexpr,
):
    """Computes a tile of y. EVEN: all warps have as many inputs, a multiple of INPUTS."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    is_row, is_output = row < rows, output < outputs
    if PDL:
        gdc_launch_dependents()
    if PREFETCH:
        _prefetch(weight_ptr, tl.program_id(1) * OUTPUTS * inputs, OUTPUTS * inputs, outputs * inputs)
    if PDL:
        gdc_wait()  # Everything above touches only weights, which no kernel writes.
    if NORM:
        mean, inverse_deviation = _row_statistics(x_ptr, row * x_stride, is_row, inputs, epsilon, ROWS)
    share = tl.cdiv(inputs, SPLITS * 16) * 16
    first = tl.arange(0, SPLITS)[:, None] * share
    sums = tl.zeros([SPLITS, OUTPUTS, ROWS], tl.float32)
    for start in range(0, share, INPUTS):
        within = start + tl.arange(0, INPUTS)[None, :]
        index = first + within  # [SPLITS, INPUTS]
        is_input = (index < inputs) & (within < share)
        w_mask, x_mask = is_output[None, :, None], is_row[None, None, :]
        if not EVEN:
            w_mask, x_mask = w_mask & is_input[:, None, :], x_mask & is_input[:, :, None]
        w = tl.load(weight_ptr + output[None, :, None] * inputs + index[:, None, :], w_mask, 0.0)
        x = tl.load(x_ptr + row[None, None, :] * x_stride + index[:, :, None], x_mask, 0.0)
        if NORM:
            gain = tl.load(norm_weight_ptr + index, None if EVEN else is_input)
            shift = tl.load(norm_bias_ptr + index, None if EVEN else is_input)
            x = (x - mean[None, None, :]) * inverse_deviation[None, None, :] * gain[:, :, None] + shift[:, :, None]
            if not EVEN:
                x = tl.where(is_input[:, :, None], x, 0.0)
        sums = tl.dot(w.to(PRODUCT), x.to(PRODUCT), sums, input_precision="ieee")
    y = tl.sum(sums, 0)  # [OUTPUTS, ROWS]
    if SCALED:
        y *= tl.load(scale_ptr + output, is_output, 0.0)[:, None]
    if GELU:
        y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    mask = is_output[:, None] & is_row[None, :]
    if RESIDUAL:
        y += tl.load(residual_ptr + row[None, :] * residual_stride + output[:, None], mask)
    tl.store(y_ptr + row[None, :] * y_stride + output[:, None], y.to(y_ptr.dtype.element_ty), mask)


@triton.jit
def _row_statistics(x_ptr, row_offset, is_row, inputs, epsilon, ROWS: tl.constexpr):
    """The mean and the inverse standard deviation of each row of a tile, [ROWS].

    In a tile of any number of rows, one warp has a row, spread over its threads in the same way: they sum alike.
    """
    SPAN: tl.constexpr = 128
    total = tl.zeros([ROWS, SPAN], tl.float32)
    squares = tl.zeros([ROWS, SPAN], tl.float32)
    # Unrolled, so that about 64 values per thread are being loaded at a time.
    for start in tl.range(0, inputs, SPAN, loop_unroll_factor=64 // ROWS):
        index = start + tl.arange(0, SPAN)
        x = tl.load(x_ptr + row_offset[:, None] + index[None, :], is_row[:, None] & (index < inputs)[None, :], 0.0)
        total += x
        squares += x * x
    mean = tl.sum(total, 1) / inputs
    variance = tl.sum(squares, 1) / inputs - mean * mean
    return mean, tl.rsqrt(tl.maximum(variance, 0.0) + epsilon)


@triton.jit
def _prefetch(ptr, start, count, limit):
    """Asks for elements to be loaded into the L2 cache, and doesn't wait for them."""
    LINES: tl.constexpr = 128
    line = 128 // (ptr.dtype.element_ty.primitive_bitwidth // 8)
    for at in range(start, tl.minimum(start + count, limit), LINES * line):
        addresses = ptr + tl.minimum(at + tl.arange(0, LINES) * line, limit - 1)
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; mov.b32 $0, 0;", "=r,l", [addresses], tl.int32, is_pure=False, pack=1
        )
