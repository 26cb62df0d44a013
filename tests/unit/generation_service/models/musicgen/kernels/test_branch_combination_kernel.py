"""The kernel that combines branches, run by Triton's interpreter and compiled, against its definition."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="The kernels need Triton")

from torch import Tensor  # noqa: E402

from generation_service.models.musicgen.kernels import branch_combination_kernel  # noqa: E402
from generation_service.models.musicgen.kernels.branch_combination import combine_branches  # noqa: E402
from generation_service.models.musicgen.kernels.step_ends import FRAMES, POSITION, PROMPT_FRAMES  # noqa: E402
from tests.support.triton_kernels import Launch, interpreted, recorded  # noqa: E402

SLOTS = 6
SOURCES = torch.tensor(
    [
        [SLOTS, 0, 0, 0, 0],  # A single branch.
        [2, 2, 6, 7, 2],  # Three branches, of which the next slot of the step has two.
        [4, 4, 8, 4, 4],  # Two branches.
        [2, 2, 6, 7, 2],
        [4, 4, 8, 4, 4],
        [SLOTS, 10, 10, 10, 10],
    ]
)
WEIGHTS = torch.zeros(SLOTS + 1, 2, 4)
WEIGHTS[SLOTS, :, 0] = 1
WEIGHTS[2, 0, :3], WEIGHTS[2, 1, :3] = torch.tensor([0.5, 0.2, 0.3]), torch.tensor([0.1, 0.2, 0.7])
WEIGHTS[4, 0, :2], WEIGHTS[4, 1, :2] = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
BATCH = 5


def inputs_of(codebooks: int, card: int, batch: int = BATCH) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Requests at the start, in the middle, and behind the last frame of their windows."""
    logits = torch.randn(batch, 2, codebooks, card, generator=torch.Generator().manual_seed(1))
    integers = torch.zeros(6, batch, dtype=torch.int64)
    integers[POSITION] = torch.tensor([3, 30, 62, 30, 62])[:batch]
    integers[PROMPT_FRAMES] = torch.tensor([3, 10, 0, 10, 0])[:batch]
    integers[FRAMES] = torch.tensor([50, 50, 60, 50, 60])[:batch]
    return logits, SOURCES, WEIGHTS, integers


def test_logits_are_the_weighted_sum_of_the_branches() -> None:
    logits, *others = inputs_of(4, 30)
    combined = combine_branches(logits, *others)
    assert torch.equal(combined[0], logits[0]), "a single branch stays as it is"
    weights = [0.5 - 0.4 / 2, 0.2, 0.3 + 0.4 / 2]  # In the middle of the new frames.
    branches = [logits[1, 0], logits[3, 0], logits[3, 1]]
    expected = sum(weight * branch for weight, branch in zip(weights, branches, strict=True))
    torch.testing.assert_close(combined[1, 0], expected)
    assert torch.equal(combined[1, 1], logits[1, 1]), "the negative condition"
    assert torch.equal(combined[2, 0], logits[4, 0]), "the last weights apply to the steps behind the last frame"
    assert torch.equal(combined[1], combined[3]), "companions sample the same codes"


@pytest.mark.parametrize(("codebooks", "card"), [(4, 2048), (3, 30)])
def test_kernel_combines_as_defined(codebooks: int, card: int) -> None:
    inputs = inputs_of(codebooks, card)
    with interpreted():
        combined = branch_combination_kernel.combine_branches(*inputs)
    torch.testing.assert_close(combined, combine_branches(*inputs), atol=1e-6, rtol=1e-6)
    assert torch.equal(combined[0], inputs[0][0])


def launch(batch: int, *, pdl: bool = False) -> Launch:
    with recorded() as recording:
        branch_combination_kernel.combine_branches(*inputs_of(4, 2048, batch), pdl=pdl)
    return recording[0]


@pytest.mark.parametrize("capability", [90, 121])
def test_compiles_without_spilling_registers_to_one_binary_for_all_batch_sizes(capability: int) -> None:
    one, many = launch(1), launch(BATCH)
    assert one.compile(capability).local_bytes == 0
    assert one.specialization(capability) == many.specialization(capability)


def test_lets_the_next_kernel_start_early_and_waits_before_it_reads() -> None:
    early = launch(BATCH, pdl=True)
    assert early.kwargs["launch_pdl"]
    order = re.findall(r"griddepcontrol\.\w+|(?:ld|st)\.global", early.compile(90).ptx)
    assert order[:2] == ["griddepcontrol.launch_dependents", "griddepcontrol.wait"]
