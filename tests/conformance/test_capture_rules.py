"""Each rule of `tests.support.capture_rules` fires, and code that a CUDA graph can capture passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the rules are about torch")

from torch import Tensor  # noqa: E402

from tests.support.capture_rules import CaptureViolation, assert_capturable, capture_rules  # noqa: E402

FORBIDDEN: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "int": lambda x: int(x[0]),
    "float": lambda x: float(x[0]),
    "index": lambda x: [1, 2][x.long()[0]],
    "bool": lambda x: 1 if x[0] else 2,
    "branch on a comparison": lambda x: x if x.max() > 1 else -x,
    "iteration over values": lambda x: [value.item() for value in x],
    "equal": lambda x: torch.equal(x, x),
    "allclose": lambda x: torch.allclose(x, x),
    "contains": lambda x: 2.0 in x,
    "print": lambda x: f"{x}",
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "asarray": lambda x: np.asarray(x),
    "slice by a tensor": lambda x: x[: x.long()[0]],
    "nonzero": lambda x: x.nonzero(),
    "where with one argument": lambda x: torch.where(x > 1),
    "masked_select": lambda x: x.masked_select(x > 1),
    "mask": lambda x: x[x > 1],
    "assignment by a mask": lambda x: x.__setitem__(x > 1, x[:2]),
    "unique": lambda x: x.unique(),
    "bincount": lambda x: x.long().bincount(),
    "repeat_interleave": lambda x: x.repeat_interleave(x.long()),
    "cpu": lambda x: x.cpu(),
    "to another device": lambda x: x.to("cpu"),
    "to another device by keyword": lambda x: x.to(device="cpu"),
    "a copy between devices": lambda x: torch.empty(3, device="meta").copy_(x),
    "a result on another device": lambda x: torch.zeros_like(x, device="meta"),
    "tensor": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    "tensor on the device": lambda x: x + torch.tensor(1.0, device=x.device),
    "as_tensor": lambda x: x + torch.as_tensor([1.0, 2.0, 3.0]),
    "from_numpy": lambda x: x + torch.from_numpy(np.ones(3, np.float32)),
    "new_tensor": lambda x: x.new_tensor([1.0]),
    "list as an index": lambda x: x[[0, 2]],
    "a factory without a device": lambda x: x + torch.arange(3),
    "rand": lambda x: torch.rand(3, device=x.device),
    "uniform_": lambda x: x.uniform_(),
    "multinomial": lambda x: x.multinomial(1),
    "dropout": lambda x: torch.dropout(x, 0.5, True),
    "resize_": lambda x: x.clone().resize_(7),
}


@pytest.mark.parametrize("inference", [False, True], ids=["", "inference mode"])
@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_a_capture_forbids_is_found(name: str, inference: bool) -> None:
    with torch.inference_mode(inference):
        x = torch.ones(3) + 1
        with pytest.raises(CaptureViolation), capture_rules():
            FORBIDDEN[name](x)


class Counter:
    """A step with state at fixed addresses: as the resident step, it must pass."""

    def __init__(self) -> None:
        self.positions = torch.zeros(4, dtype=torch.int64)
        self.table = torch.randn(4, 16)
        self.results = torch.zeros(4)
        self.rows = torch.tensor([3, 1])

    def __call__(self) -> None:
        rows = self.rows
        positions = self.positions[rows]
        values = self.table[rows].gather(1, positions[:, None]).squeeze(1)
        span = torch.arange(16, device=rows.device)
        mask = torch.zeros(2, 16, device=rows.device).masked_fill_(span > positions[:, None], float("-inf"))
        query, keys = values[:, None, None, None].expand(-1, 1, 1, 16), self.table[rows][:, None, :, None]
        keys = keys.expand(-1, 1, 16, 16)
        attended = torch.nn.functional.scaled_dot_product_attention(query, keys, keys, mask[:, None, None])
        best = attended.topk(3).values.softmax(-1).cumsum(-1).argmax(-1).flatten()
        self.results.index_copy_(0, rows, torch.where(values > 0, values, best.to(values.dtype)))
        self.positions.index_add_(0, rows, torch.ones_like(rows))


@pytest.mark.parametrize("inference", [False, True], ids=["", "inference mode"])
def test_a_step_with_resident_state_passes(inference: bool) -> None:
    with torch.inference_mode(inference):
        step = Counter()
        trace = assert_capturable(step, between=lambda: step.rows.copy_(torch.tensor([0, 2])), runs=3)
        assert step.positions.tolist() == [2, 1, 2, 1]
        assert len(trace.operators) > 10


def test_a_python_value_that_changes_is_found() -> None:
    step = Counter()
    position = iter(range(10))
    with pytest.raises(CaptureViolation, match="differs"):
        assert_capturable(lambda: step.table[:, next(position)] + 1)


def test_a_shape_that_changes_is_found() -> None:
    length = iter(range(1, 10))
    x = torch.ones(16)
    with pytest.raises(CaptureViolation, match="differs"):
        assert_capturable(lambda: x[: next(length)].sum())


def test_state_that_moves_is_found() -> None:
    step = Counter()

    def reassign() -> None:
        step.positions = step.positions + 1

    with pytest.raises(CaptureViolation, match="differs"):
        assert_capturable(reassign)


def test_input_at_another_address_is_found() -> None:
    step = Counter()
    kept = [step.rows]

    def replace_rows() -> None:
        kept.append(step.rows)
        step.rows = torch.tensor([0, 2])

    with pytest.raises(CaptureViolation, match="differs"):
        assert_capturable(step, between=replace_rows)


def test_operator_that_runs_only_sometimes_is_found() -> None:
    runs: list[Tensor] = []
    x = torch.ones(3)

    def step() -> None:
        runs.append(x + 1 if len(runs) else (x + 1) * 2)

    with pytest.raises(CaptureViolation, match="operators"):
        assert_capturable(step)
