"""The choice of the decode step's operations on a device where only plain PyTorch works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from generation_service.models.musicgen.kernels import (  # noqa: E402
    attention_kernel,
    branch_combination,
    branch_combination_kernel,
    paged_attention,
    sampling_kernel,
    step_ends,
    step_ends_kernel,
)
from generation_service.models.musicgen.kernels.kernel_selection import Call  # noqa: E402
from generation_service.models.musicgen.resident import operation_selection  # noqa: E402
from generation_service.models.musicgen.resident.operation_selection import select_operations  # noqa: E402
from generation_service.models.musicgen.sampling import sample_checked  # noqa: E402
from tests.support.generator_runs import Plan, eager_generator, resident_generator, run_plans  # noqa: E402

WINDOW = 60
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation_selection, "_MEASURED_BYTES", 1 << 16)
    monkeypatch.setattr(operation_selection, "MEASURED_POSITIONS", 64)


def time_calls(calls: Sequence[Call]) -> float:
    """Says that any implementation takes as long as any other. All calls are to have the same result."""
    assert torch.equal(calls[0](), calls[-1]())
    return 10.0


def test_operations_that_fail_on_the_device_are_replaced_and_the_reason_is_told(mono: Path) -> None:
    config = eager_generator(mono).config
    operations, choices = select_operations(config, "fp32", torch.float32, CPU, time_calls)
    assert {choice.implementation for choice in choices} == {"torch"}
    assert all(choice.reason.startswith("triton: ") for choice in choices)
    assert all("; triton_pdl: " in choice.reason for choice in choices)
    assert {choice.operation for choice in choices} > {
        *("attention 4x16", "sampling 4x64", "branches 4x64", "step ends 4x64")
    }
    assert operations.append_and_attend is paged_attention.append_and_attend
    assert operations.sample_checked is sample_checked
    assert operations.combine_branches is branch_combination.combine_branches
    assert operations.begin_step is step_ends.begin_step
    assert not operations.samples_in_one_shape
    plan = Plan(5, 20, sampling={"temperature": 0})
    (expected,) = run_plans(eager_generator(mono), [plan], WINDOW)
    (actual,) = run_plans(resident_generator(mono, window=WINDOW, slots=1, operations=operations), [plan], WINDOW)
    assert np.array_equal(actual, expected)


@pytest.mark.parametrize("kv_dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_kernel_that_is_correct_is_chosen(mono: Path, monkeypatch: pytest.MonkeyPatch, kv_dtype: torch.dtype) -> None:
    """The kernels are replaced by their definitions, which are always correct."""
    for name in ("append_and_attend", "attend"):
        monkeypatch.setattr(attention_kernel, name, getattr(paged_attention, name))
    monkeypatch.setattr(sampling_kernel, "sample_checked", sample_checked)
    for name in ("begin_step", "end_step"):
        monkeypatch.setattr(step_ends_kernel, name, getattr(step_ends, name))
    monkeypatch.setattr(branch_combination_kernel, "combine_branches", branch_combination.combine_branches)
    config = replace(eager_generator(mono).config, num_heads=2)
    operations, choices = select_operations(config, "fp32", kv_dtype, CPU, time_calls)
    chosen = {choice.operation.split()[0]: choice.implementation for choice in choices}
    assert (chosen["attention"], chosen["sampling"], chosen["branches"], chosen["step"]) == ("triton",) * 4
    assert operations.samples_in_one_shape
