"""Runs and compiles Triton kernels on a machine without a GPU.

`interpreted` executes the kernels that are launched inside it by Triton's interpreter, on CPU tensors. Setting
TRITON_INTERPRET instead would decide for the whole process, when Triton is first imported, and rule out compiling.
`recorded` only notes the launches; a `Launch` can then be compiled for a GPU of any compute capability, with the types,
alignments and constants of exactly that launch.
"""

from __future__ import annotations

import functools
import math
import random
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.language import core  # noqa: F401 - the interpreter looks for it in this module
from triton.runtime import interpreter
from triton.runtime.jit import JITFunction, create_function_from_signature

MAX_SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10, 121: 99 << 10}
"""Compute capability × 10 → the shared memory that one program may use. Source: the CUDA C++ Programming Guide."""


_TORCH_DTYPES = {
    "fp8e4nv": torch.float8_e4m3fn,
    "fp8e5": torch.float8_e5m2,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}


@dataclass(frozen=True, slots=True)
class Binary:
    """What a compiled kernel needs of one streaming multiprocessor."""

    registers: int
    """Per thread."""
    local_bytes: int
    """Per thread: registers that are spilled to memory, and arrays that no register can hold."""
    shared_bytes: int
    """Per program."""
    threads: int
    ptx: str


@dataclass(frozen=True, slots=True)
class Launch:
    kernel: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    grid: tuple[int, ...]

    def compile(self, capability: int) -> Binary:
        """capability: compute capability × 10. Raises what Triton raises if the kernel doesn't compile."""
        signature, constants, attributes, options = self.specialization(capability)
        source = ASTSource(self.kernel, signature, constants, attributes)
        target = GPUTarget("cuda", capability, 32)
        with tempfile.TemporaryDirectory() as directory, knobs.cache.scope():
            knobs.cache.dir = directory
            compiled = triton.compile(source, target=target, options=vars(options))
            cubin = Path(directory, "kernel.cubin")
            cubin.write_bytes(compiled.asm["cubin"])
            command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)]
            usage = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        used = {name: int(count) for name, count in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
        metadata = compiled.metadata
        return Binary(
            registers=used["REG"],
            local_bytes=used["STACK"] + used["LOCAL"],
            shared_bytes=metadata.shared,
            threads=metadata.num_warps * 32,
            ptx=compiled.asm["ptx"],
        )

    def specialization(self, capability: int) -> tuple[Any, ...]:
        """What Triton compiles the kernel for: the types, constants, alignments, and options. Launches for which they
        are equal share one binary."""
        backend = make_backend(GPUTarget("cuda", capability, 32))
        bind = create_function_from_signature(self.kernel.signature, self.kernel.params, backend)
        bound, specialization, _ = bind(*self.args, **self.kwargs, debug=False)
        options, *rest = self.kernel._pack_args(backend, dict(self.kwargs), bound, specialization, None)
        return (*rest, options)


@contextmanager
def interpreted(order: random.Random | None = None) -> Iterator[None]:
    """Inside, kernels run in Triton's interpreter, program after program; with `order`, in a random order."""
    set_index = interpreter.interpreter_builder.set_grid_idx
    programs: list[int] = []

    def set_shuffled_index(*index: int) -> None:
        size = interpreter.interpreter_builder.grid_dim
        if order and not programs:
            programs.extend(order.sample(range(math.prod(size)), math.prod(size)))
        set_index(*np.unravel_index(programs.pop(), size) if order else index)

    def run(kernel: Any, *args: Any, grid: Any, **kwargs: Any) -> None:
        _interpreted(kernel.fn).run(*args, grid=grid, **kwargs)

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        return _interpreted(function.fn)(*args, **kwargs)

    # The functions of the language are replaced once, not again for each program and call.
    language = interpreter._patch_lang(_dot)
    try:
        with (
            mock.patch.multiple(JITFunction, run=run, __call__=call),
            mock.patch.multiple(interpreter, _convert_float=_convert_float, _patch_lang=mock.MagicMock()),
            mock.patch.object(interpreter.InterpreterBuilder, "create_dot", _dot),
            # Triton 3.6 converts an array of one element, which numpy 2.4 refuses.
            mock.patch.object(tl.core.tensor, "__index__", lambda x: int(x.handle.data.squeeze()), create=True),
            mock.patch.object(interpreter.interpreter_builder, "set_grid_idx", set_shuffled_index),
            # It would copy each tensor onto itself: they are on the CPU already.
            mock.patch.object(interpreter.GridExecutor, "_restore_args_dev"),
            knobs.runtime.scope(),
            np.errstate(all="ignore"),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore", RuntimeWarning)  # A GPU calculates with NaN in silence.
            knobs.runtime.interpret = True
            yield
    finally:
        language.restore()


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Inside, kernels are not run; yields the list of their launches."""
    launches: list[Launch] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        launches.append(Launch(kernel, args, kwargs, grid))

    with mock.patch.object(JITFunction, "run", run):
        yield launches


@functools.cache
def _interpreted(function: Callable[..., Any]) -> Any:
    return interpreter.InterpretedFunction(function)


def _convert_float(values: Any, source: tl.dtype, target: tl.dtype, rounding_mode: Any) -> Any:
    """Rounds to the nearest value, as a GPU does; the interpreter's own function truncates, and loses carries."""
    bits = torch.from_numpy(np.ascontiguousarray(values)).view(_TORCH_DTYPES[source.name])
    dtype = _TORCH_DTYPES[target.name]
    if dtype == torch.float8_e4m3fn:  # Before version 2.13, torch turns what is too large into NaN.
        bits = bits.float().clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    converted = bits.to(dtype)
    return converted.view(getattr(torch, f"uint{target.primitive_bitwidth}")).numpy()


def _dot(builder: Any, a: Any, b: Any, accumulator: Any, *precision: Any) -> Any:
    """The interpreter's own function takes the bits of bf16 for integers."""
    a, b = (
        x.data if x.dtype.scalar == tl.float32 else builder.create_fp_to_fp(x, tl.float32, None).data for x in (a, b)
    )
    return interpreter.TensorHandle(np.matmul(a, b) + accumulator.data, accumulator.dtype.scalar)
