"""Which implementation and which format the linear layers of a model get on a device."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="kernels need Triton")

from generation_service.models.musicgen.checkpoints.config import LmConfig  # noqa: E402
from generation_service.models.musicgen.kernels.kernel_selection import Call  # noqa: E402
from generation_service.models.musicgen.lm.device_linear import TorchLinear, TritonLinear  # noqa: E402
from generation_service.models.musicgen.lm.linear_selection import (  # noqa: E402
    layer_shapes,
    select_linears,
)
from tests.support.lm_configs import lm_config  # noqa: E402
from tests.support.tensor_cores import interpreted_with_mma  # noqa: E402

CPU = torch.device("cpu")


def config(dim: int = 16, layers: int = 3) -> LmConfig:
    return lm_config(dim, layers, num_heads=2, card=8)


def ten_microseconds(calls: Sequence[Call]) -> float:
    calls[0]()
    return 10.0


def test_a_step_runs_six_layers_per_block_and_the_heads() -> None:
    shapes = {(shape.outputs, shape.inputs): shape.per_step for shape in layer_shapes(config())}
    assert shapes == {(48, 16): 3, (16, 16): 9, (64, 16): 3, (16, 64): 3, (32, 16): 1}
    assert sum(shapes.values()) == 6 * 3 + 1


def test_the_kernel_is_selected_for_every_shape() -> None:
    with interpreted_with_mma():
        selection = select_linears(layer_shapes(config()), "int8", CPU, ten_microseconds, row_counts=(1, 9))
    assert {choice.implementation for choice in selection.choices} == {"triton"}
    assert selection.choices[0].operation == "linear 16x48 int8"
    assert [choice.reason for choice in selection.choices] == [""] * 5
    for shape in layer_shapes(config()):
        layer = selection.build(torch.zeros(shape.outputs, shape.inputs))
        assert isinstance(layer, TritonLinear)
        assert layer.weights.values.dtype == torch.int8


def test_plain_pytorch_is_selected_where_the_kernel_does_not_run() -> None:
    # Outside the interpreter, a kernel that is launched on CPU tensors raises.
    selection = select_linears(layer_shapes(config())[:1], "bf16", CPU, ten_microseconds, row_counts=(2,))
    assert selection.choices[0].implementation == "torch"
    assert selection.choices[0].reason.startswith("triton: ")
    assert isinstance(selection.build(torch.zeros(48, 16)), TorchLinear)


def test_measured_weights_do_not_fit_into_a_cache() -> None:
    memory: set[int] = set()
    counts: list[int] = []

    def timer(calls: Sequence[Call]) -> float:
        counts.append(len(calls))
        for call in calls:
            layer = next(cell.cell_contents for cell in call.__closure__ if isinstance(cell.cell_contents, TorchLinear))  # type: ignore[attr-defined]
            memory.add(layer.weights.values.data_ptr())
        return 1.0

    select_linears(layer_shapes(config())[:1], "bf16", CPU, timer, row_counts=(2,), measured_bytes=10 * 48 * 16 * 2)
    assert counts == [10]
    assert len(memory) == 10
