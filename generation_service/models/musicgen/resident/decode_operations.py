"""The operations of the decode step that have several implementations. The loader chooses one of each for a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from generation_service.models.musicgen import sampling
from generation_service.models.musicgen.kernels import branch_combination, paged_attention, step_ends
from generation_service.models.musicgen.kernels.paged_attention import LayerPages
from generation_service.models.musicgen.kernels.step_ends import CodeEmbeddings, StepInputs, StepState
from generation_service.models.musicgen.lm.decoder_layers import BuildLinear
from generation_service.models.musicgen.sampling import SamplingTensors


class Attend(Protocol):
    """`paged_attention.append_and_attend` or `paged_attention.attend`, or what computes the same."""

    def __call__(
        self,
        queries: Tensor,
        pages: LayerPages,
        table: Tensor,
        positions: Tensor,
        max_positions: int,
        slots: Tensor | None = None,
        /,
    ) -> Tensor: ...


class SampleChecked(Protocol):
    """`sampling.sample_checked`, or what computes the same."""

    def __call__(
        self, logits: Tensor, parameters: SamplingTensors, sample_counts: Tensor, *, max_top_k: int, uses_top_p: bool
    ) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, slots=True)
class DecodeOperations:
    """One implementation of each operation. The defaults are the definitions, in plain PyTorch."""

    build_linear: BuildLinear
    append_and_attend: Attend = paged_attention.append_and_attend
    attend: Attend = paged_attention.attend
    """Also called with rows that share pages."""
    sample_checked: SampleChecked = sampling.sample_checked
    samples_in_one_shape: bool = False
    """Whether `sample_checked` takes as long for any parameters. If not, the steps of requests with a top-p or a large
    top-k have a shape of their own."""
    combine_branches: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = branch_combination.combine_branches
    begin_step: Callable[[StepState, int, CodeEmbeddings], StepInputs] = step_ends.begin_step
    end_step: Callable[[StepState, Tensor, Tensor, Tensor, Tensor], None] = step_ends.end_step
