"""How a loaded model runs: on which device, in which precision, with which kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class KernelChoice:
    """The implementation that was chosen for one operation of the decode step."""

    operation: str
    """For example "attention 16x64" or "linear 1024x4096 bf16"; "precision" stands for the format of the weights."""
    implementation: str
    """The implementation in use: "triton", "triton_pdl" or "torch"; for the precision its name."""
    microseconds: Mapping[str, float] = field(default_factory=dict)
    """Implementation → the time it took for a batch of one request, for those that work."""
    reason: str = ""
    """Why an implementation is not used although it may be faster, or why the precision `auto` is this one."""


@dataclass(frozen=True, slots=True)
class ModelExecution:
    """How a loaded model runs. A model with a language model returns it from its method `execution()`."""

    device: str
    """ "cpu" or, for a GPU, "cuda:0"."""
    precision: str
    """Precision of the weights: "fp32", "bf16", "int8" or "fp8"."""
    kv_precision: str
    """Precision of the KV cache: "fp32", "bf16", "int8" or "fp8"."""
    max_batch_size: int
    load_seconds: float = 0.0
    """What loading took, warm-up included."""
    warm_up_seconds: float = 0.0
    """The part of it in which kernels were chosen and CUDA graphs captured."""
    kernels: tuple[KernelChoice, ...] = ()
    """The kernels in use; empty on the CPU."""
