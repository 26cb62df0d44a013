"""The decode step's operations, all of them by Triton kernels."""

from __future__ import annotations

from functools import partial

from generation_service.models.musicgen.kernels import (
    attention_kernel,
    branch_combination_kernel,
    sampling_kernel,
    step_ends_kernel,
)
from generation_service.models.musicgen.kernels.quantized_weights import WeightFormat
from generation_service.models.musicgen.lm.device_linear import LinearImplementation, build_device_linear
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations


def kernel_operations(weight_format: WeightFormat, *, pdl: bool) -> DecodeOperations:
    """pdl: all kernels are launched early."""
    implementation: LinearImplementation = "triton_pdl" if pdl else "triton"
    return DecodeOperations(
        partial(build_device_linear, weight_format=weight_format, implementation=implementation),
        append_and_attend=partial(attention_kernel.append_and_attend, pdl=pdl),
        attend=partial(attention_kernel.attend, pdl=pdl),
        sample_checked=partial(sampling_kernel.sample_checked, pdl=pdl),
        samples_in_one_shape=True,
        combine_branches=partial(branch_combination_kernel.combine_branches, pdl=pdl),
        begin_step=partial(step_ends_kernel.begin_step, pdl=pdl),
        end_step=partial(step_ends_kernel.end_step, pdl=pdl),
    )
