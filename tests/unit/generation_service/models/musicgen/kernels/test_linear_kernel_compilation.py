"""The fused linear kernel, compiled for GPUs that this machine doesn't have."""

from __future__ import annotations

import re
from typing import Any
from unittest import mock

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
triton = pytest.importorskip("triton", reason="kernels need Triton")

from generation_service.models.musicgen.kernels.linear_kernel import fused_linear  # noqa: E402
from generation_service.models.musicgen.kernels.quantized_weights import (  # noqa: E402
    WEIGHT_DTYPES,
    StoredWeights,
    WeightFormat,
)
from tests.support.triton_kernels import MAX_SHARED_BYTES, Launch, recorded  # noqa: E402

TWO_REGISTERS = 16
"""Bytes. On some devices, the compiler keeps two registers in memory that are used outside of the loops only."""
INSTRUCTION = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"


def launch(
    rows: int, outputs: int, inputs: int, weight_format: WeightFormat, form: str, *, pdl: bool = False
) -> Launch:
    scale = torch.ones(outputs) if weight_format in ("int8", "fp8") else None
    weights = StoredWeights(torch.empty(outputs, inputs, dtype=WEIGHT_DTYPES[weight_format]), scale)
    x = torch.empty(rows, inputs, dtype=weights.product_dtype if form == "down" else torch.float32)
    norm = (torch.ones(inputs), torch.ones(inputs), 1e-5) if form in ("qkv", "up") else None
    residual = torch.empty(rows, outputs) if form in ("out", "down") else None
    with recorded() as launches:
        fused_linear(x, weights, norm=norm, gelu=form == "up", residual=residual, pdl=pdl)
    assert len(launches) == 1, "one kernel, whatever is fused"
    return launches[0]


LAUNCHES = {
    "small qkv, one request": (2, 3072, 1024, "bf16", "qkv"),
    "small out, one request": (2, 1024, 1024, "int8", "out"),
    "small down, eight requests": (16, 1024, 4096, "bf16", "down"),
    "medium down, 64 requests": (128, 1536, 6144, "fp8", "down"),
    "large up, 64 requests": (128, 8192, 2048, "int8", "up"),
}


@pytest.mark.parametrize("capability", [pytest.param(90, marks=pytest.mark.slow), 121])
@pytest.mark.parametrize("name", LAUNCHES)
def test_fits_into_a_multiprocessor_and_uses_one_tensor_core_instruction(name: str, capability: int) -> None:
    binary = launch(*LAUNCHES[name]).compile(capability)
    assert binary.local_bytes <= TWO_REGISTERS
    assert binary.shared_bytes <= MAX_SHARED_BYTES[capability]
    assert binary.threads == 128
    assert set(re.findall(r"\w*mma[\w.]*", binary.ptx)) == {INSTRUCTION}, "it alone makes rows independent of tiles"
    assert "cp.async.cg.shared.global" in binary.ptx, "weights are loaded ahead, 16 bytes at a time"


@pytest.mark.parametrize(("capability", "weight_format"), [(80, "int8"), (100, "bf16"), (121, "fp32")])
def test_other_devices_and_fp32(capability: int, weight_format: WeightFormat) -> None:
    binary = launch(128, 1024, 1024, weight_format, "out").compile(capability)
    assert binary.local_bytes <= TWO_REGISTERS
    assert binary.shared_bytes <= MAX_SHARED_BYTES[capability]
    instructions = set() if weight_format == "fp32" else {INSTRUCTION}
    assert set(re.findall(r"\w*mma[\w.]*", binary.ptx)) == instructions


def test_an_early_launch_asks_for_weights_before_it_waits_and_reads_nothing_else() -> None:
    ptx = launch(2, 1024, 1024, "bf16", "out", pdl=True).compile(90).ptx
    order = re.findall(r"griddepcontrol\.\w+|prefetch\.global\.L2|cp\.async\.c|ld\.global|st\.global", ptx)
    first = list(dict.fromkeys(order))
    assert first[:3] == ["griddepcontrol.launch_dependents", "prefetch.global.L2", "griddepcontrol.wait"]
    assert order.index("griddepcontrol.wait") < min(order.index("cp.async.c"), order.index("st.global"))


def test_weights_are_asked_for_before_the_normalization() -> None:
    ptx = launch(2, 1024, 1024, "bf16", "qkv").compile(90).ptx
    assert ptx.index("prefetch.global.L2") < ptx.index("ld.global")
    assert "griddepcontrol" not in ptx


def test_sums_have_the_same_order_in_all_tiles() -> None:
    """The layout of a tile in registers decides in which order its elements are summed."""
    layouts = set()
    compiled: list[Any] = []
    original = triton.compile

    def keep(*args: Any, **kwargs: Any) -> Any:
        compiled.append(original(*args, **kwargs))
        return compiled[-1]

    with mock.patch.object(triton, "compile", keep):
        for rows, outputs in ((2, 1024), (128, 8192)):
            launch(rows, outputs, 1024, "bf16", "qkv").compile(90)
    for kernel in compiled:
        text = kernel.asm["ttgir"]
        names = re.findall(r'"tt\.reduce".*?tensor<[^#]*#(\w+)>\) ->', text, re.DOTALL)
        layouts.add(tuple(re.search(rf"^#{name} = (.*)$", text, re.MULTILINE)[1] for name in names))  # type: ignore[index]
    assert len(layouts) == 1
    rows_in_warps = "sizePerThread = [1, 4], threadsPerWarp = [1, 32], warpsPerCTA = [4, 1]"
    mean, variance, warps = layouts.pop()
    assert rows_in_warps in mean
    assert mean == variance
    assert "warpsPerCTA = [4, 1, 1], instrShape = [1, 16, 8]" in warps
