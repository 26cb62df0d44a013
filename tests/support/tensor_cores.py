"""Runs Triton kernels in the interpreter with products that are summed as tensor cores sum them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import triton.language as tl
from triton.runtime import interpreter

from tests.support.triton_kernels import interpreted

_INPUTS = 16
"""What one mma.m16n8k16 instruction sums."""


@contextmanager
def interpreted_with_mma() -> Iterator[None]:
    """`interpreted`, but `tl.dot` adds 16 products at a time to the sum, in the order of the inputs.

    numpy's matmul, which the interpreter uses, chooses an order by the shapes of the operands. Here, as on a GPU, only
    the order in which a kernel passes the inputs decides how an element is rounded.
    """
    with (
        interpreted(),
        mock.patch.multiple(interpreter.InterpreterBuilder, create_dot=_dot, create_si_to_fp=_convert_integer),
    ):
        yield


def _dot(builder: Any, a: Any, b: Any, accumulator: Any, *precision: Any) -> Any:
    a, b = (
        x.data if x.dtype.scalar == tl.float32 else builder.create_fp_to_fp(x, tl.float32, None).data for x in (a, b)
    )
    total = accumulator.data
    for start in range(0, a.shape[-1], _INPUTS):
        inputs = slice(start, start + _INPUTS)
        total = total + (a[..., inputs, None] * b[..., None, inputs, :]).sum(-2)
    return interpreter.TensorHandle(total, accumulator.dtype.scalar)


def _convert_integer(builder: Any, source: Any, target: tl.dtype) -> Any:
    """The interpreter's own function stores integers as if they were the bits of bf16."""
    if target.scalar != tl.bfloat16:
        return builder.cast_impl(source, target)
    return builder.create_fp_to_fp(builder.cast_impl(source, tl.float32), tl.bfloat16, None)
