"""Compiles a kernel with Triton and runs it on the GPU: `python -m generation_service.hardware.triton_check`.

A process of its own, because a compiler that does not fit the driver may end the process.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

SIZE = 128


@triton.jit  # type: ignore[untyped-decorator]
def _double(values, size: tl.constexpr):  # type: ignore[no-untyped-def]
    offsets = tl.arange(0, size)
    tl.store(values + offsets, 2 * tl.load(values + offsets))


def main() -> None:
    """Prints Triton's version. Raises if the kernel does not compile, or computes nonsense."""
    values = torch.arange(SIZE, device="cuda")
    _double[(1,)](values, SIZE)
    if values.tolist() != [2 * value for value in range(SIZE)]:
        raise RuntimeError("the kernel returned wrong values")
    print(triton.__version__)


if __name__ == "__main__":
    main()
