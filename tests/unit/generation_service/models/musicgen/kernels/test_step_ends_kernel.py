"""The kernels at the two ends of a step, run by Triton's interpreter and compiled, against their definition."""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="The kernels need Triton")

from torch import Tensor  # noqa: E402

from generation_service.models.musicgen.kernels import step_ends, step_ends_kernel  # noqa: E402
from generation_service.models.musicgen.kernels.step_ends import (  # noqa: E402
    FRAMES,
    POSITION,
    PROMPT_FRAMES,
    SAMPLE_COUNT,
    CodeEmbeddings,
)
from tests.support.triton_kernels import Launch, interpreted, recorded  # noqa: E402

SLOTS, COLUMNS, CARD = 5, 40, 30
PADDING = SLOTS


@dataclass
class State:
    codes: Tensor
    integers: Tensor
    floats: Tensor
    rows: Tensor
    results: Tensor


def state_of(codebooks: int) -> State:
    """Slots before, at the edges of, and beyond what the delay pattern lets through; and rows of nobody."""
    random = torch.Generator().manual_seed(1)
    integers = torch.zeros(6, SLOTS + 1, dtype=torch.int64)
    integers[POSITION, :SLOTS] = torch.tensor([0, 2, 11, 30, 33])
    integers[SAMPLE_COUNT, :SLOTS] = torch.tensor([0, 2, 1, 500, 7])
    integers[PROMPT_FRAMES, :SLOTS] = torch.tensor([0, 0, 10, 0, 0])
    integers[FRAMES, :SLOTS] = torch.tensor([30, 30, 30, 30, 35])
    return State(
        codes=torch.randint(0, CARD, (SLOTS + 1, codebooks, COLUMNS), generator=random),
        integers=integers,
        floats=torch.randn(3, SLOTS + 1, generator=random),
        rows=torch.tensor([3, 0, 4, PADDING, PADDING]),
        results=torch.full((SLOTS, codebooks + 1), -1),
    )


def embeddings_of(codebooks: int, dim: int) -> CodeEmbeddings:
    random = torch.Generator().manual_seed(2)
    codes = torch.randn(codebooks * (CARD + 1), dim, generator=random)
    return CodeEmbeddings(codes, torch.arange(codebooks) * (CARD + 1), torch.randn(COLUMNS - 1, dim, generator=random))


@pytest.mark.parametrize(("codebooks", "dim"), [(4, 1024), (8, 1536), (3, 40)], ids=["mono", "stereo", "odd"])
def test_a_step_begins_as_defined(codebooks: int, dim: int) -> None:
    state, embeddings = state_of(codebooks), embeddings_of(codebooks, dim)
    for batch in (1, 5):
        expected = step_ends.begin_step(state, batch, embeddings)
        with interpreted():
            actual = step_ends_kernel.begin_step(state, batch, embeddings)
        torch.testing.assert_close(actual.x, expected.x, atol=1e-5, rtol=1e-6)
        assert torch.equal(actual.integers, expected.integers)
        assert torch.equal(actual.floats, expected.floats)


@pytest.mark.parametrize("codebooks", [4, 8, 3])
@pytest.mark.parametrize("rows", [[3, 0, 4, PADDING, PADDING], [1, 2], [2]])
def test_a_step_ends_as_defined(codebooks: int, rows: list[int]) -> None:
    state = state_of(codebooks)
    state.rows[: len(rows)] = torch.tensor(rows)
    integers = state.integers[:, rows]
    sampled = torch.arange(100, 100 + len(rows) * codebooks).view(-1, codebooks)
    is_finite = torch.ones(len(rows), codebooks, dtype=torch.bool)
    is_finite[0, -1] = False
    delays = torch.arange(codebooks)
    expected, actual = copy.deepcopy(state), copy.deepcopy(state)
    step_ends.end_step(expected, integers, sampled, is_finite, delays)
    with interpreted():
        step_ends_kernel.end_step(actual, integers, sampled, is_finite, delays)
    for name in ("codes", "integers", "results"):
        assert torch.equal(getattr(actual, name), getattr(expected, name)), name
    assert actual.results[: len(rows), -1].tolist() == [0, *[1] * (len(rows) - 1)]
    assert not torch.equal(actual.codes, state.codes)
    assert torch.equal(actual.codes[PADDING], state.codes[PADDING])
    assert torch.equal(actual.integers[:, PADDING], state.integers[:, PADDING])


def launches(batch: int, *, pdl: bool = False) -> list[Launch]:
    state: Any = state_of(4)
    with recorded() as recording:
        inputs = step_ends_kernel.begin_step(state, batch, embeddings_of(4, 1024), pdl=pdl)
        sampled = torch.zeros(batch, 4, dtype=torch.int64)
        step_ends_kernel.end_step(state, inputs.integers, sampled, sampled == 0, torch.arange(4), pdl=pdl)
    return recording


@pytest.mark.parametrize("capability", [90, 121])
def test_compile_without_spilling_registers_to_one_binary_for_all_batch_sizes(capability: int) -> None:
    for one, many in zip(launches(1), launches(5), strict=True):
        assert one.compile(capability).local_bytes == 0
        assert one.specialization(capability) == many.specialization(capability)


def test_only_the_first_lets_the_next_kernel_start_early_and_only_the_last_starts_early() -> None:
    begin, end = launches(5, pdl=True)
    assert "griddepcontrol.wait" not in begin.compile(90).ptx
    assert not begin.kwargs.get("launch_pdl", False)
    order = re.findall(r"griddepcontrol\.\w+|(?:ld|st)\.global", begin.compile(90).ptx)
    assert order[0] == "griddepcontrol.launch_dependents"
    order = re.findall(r"griddepcontrol\.\w+|(?:ld|st)\.global", end.compile(90).ptx)
    assert order[0] == "griddepcontrol.wait"
    assert "griddepcontrol.launch_dependents" not in order, "the next step starts when all of this one has ended"
    assert end.kwargs["launch_pdl"]
