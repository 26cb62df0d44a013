"""Runs and compiles Triton kernels on a machine without a GPU.

`interpreted` executes the kernels that are launched inside it by Triton's interpreter, on CPU tensors. Setting
TRITON_INTERPRET instead would decide for the whole process, when Triton is first imported, and rule out compiling.
`recorded` only notes the launches; a `Launch` can then be compiled for a GPU of any compute capability, with the types,
alignments and constants of exactly that launch.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import triton
import triton.language as tl
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction, create_function_from_signature

MAX_SHARED_BYTES = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10, 121: 99 << 10}
"""Compute capability × 10 → the shared memory that one program may use. Source: the CUDA C++ Programming Guide."""


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
        target = GPUTarget("cuda", capability, 32)
        backend = make_backend(target)
        bind = create_function_from_signature(self.kernel.signature, self.kernel.params, backend)
        bound, specialization, options = bind(*self.args, **self.kwargs, debug=False)
        options, signature, constants, attributes = self.kernel._pack_args(
            backend, dict(self.kwargs), bound, specialization, options
        )
        source = ASTSource(self.kernel, signature, constants, attributes)
        with tempfile.TemporaryDirectory() as directory, knobs.cache.scope():
            knobs.cache.dir = directory
            compiled = triton.compile(source, target=target, options=options.__dict__)
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


@contextmanager
def interpreted() -> Iterator[None]:
    """Inside, kernels run in Triton's interpreter; its `tl.dot` is wrong for bf16: convert to fp32 before."""

    def run(kernel: Any, *args: Any, grid: Any, **kwargs: Any) -> None:
        InterpretedFunction(kernel.fn).run(*args, grid=grid, **kwargs)

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        return InterpretedFunction(function.fn)(*args, **kwargs)

    # The interpreter replaces the functions of the language, and does not put all of them back.
    patched = (tl, tl.core, tl.math, tl.tensor, tl.dtype, tl.core.tensor_descriptor_base)
    saved = [dict(vars(owner)) for owner in patched]
    try:
        with (
            mock.patch.multiple(JITFunction, run=run, __call__=call),
            knobs.runtime.scope(),
            np.errstate(all="ignore"),
        ):
            knobs.runtime.interpret = True
            yield
    finally:
        for owner, members in zip(patched, saved, strict=True):
            for name in set(vars(owner)) - set(members):
                delattr(owner, name)
            for name, member in members.items():
                if vars(owner)[name] is not member:
                    setattr(owner, name, member)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Inside, kernels are not run; yields the list of their launches."""
    launches: list[Launch] = []

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        launches.append(Launch(kernel, args, kwargs, grid))

    with mock.patch.object(JITFunction, "run", run):
        yield launches
