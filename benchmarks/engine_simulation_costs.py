"""What a decode step and the work around it cost on a device: the model behind `benchmarks.engine_simulation`.

All times are in seconds. The constants of a device are public figures or assumptions, each with its source. Figures
measured on a GPU by `benchmarks/gpu.sh` replace them: `calibrated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

FRAME_RATE_HZ = 50
CFG_ROWS = 2
"""Rows per request: with and without the prompt, for classifier-free guidance."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device's rates and fixed times."""

    name: str
    bandwidth: float
    """Bytes per second that kernels reach."""
    flops: float
    """Operations per second that matrix products of a step's size reach."""
    launch_gap: float
    """From the end of a kernel to the work of the next one, within a CUDA graph."""
    host_step: float
    """The host's work per step. It overlaps with the device's work, because the host launches ahead."""
    host_row: float
    """The host's work per step and row."""
    host_launch: float
    """The host's time to launch one operator eagerly, as in T5, and when a request's state is written."""
    codec_flops: float
    """Operations per second of EnCodec, whose convolutions are small."""
    memory: int
    """Bytes."""


_EFFICIENCY = 0.85
"""The share of the bandwidth in the data sheet that kernels reach. An H200's 4.3 TB/s of 4.8 in a large copy is 0.9."""
H200 = Device("H200", 4.8e12 * _EFFICIENCY, 4.0e14, 2.0e-6, 1e-4, 1e-6, 8e-6, 4.0e13, 141 * 10**9)
"""4.8 TB/s, 989 TFLOP/s in bf16 without sparsity (NVIDIA's data sheet), of which narrow products reach 40 %,
and EnCodec 4 %: an assumption."""
EARLY_LAUNCH_GAP = 1.2e-6
"""`launch_gap` if kernels are launched early (programmatic dependent launch): the launch itself is hidden, and so are
the first loads, of weights, keys and values; reading what the last kernel wrote is not. An assumption."""
H100 = replace(H200, name="H100 SXM", bandwidth=3.35e12 * _EFFICIENCY, memory=80 * 10**9)
"""3.35 TB/s (NVIDIA's data sheet)."""
GB10 = Device("GB10", 2.73e11 * _EFFICIENCY, 5.0e13, 2.5e-6, 1.5e-4, 1.5e-6, 1.2e-5, 5.0e12, 128 * 10**9)
"""273 GB/s, 1 PFLOP/s in fp4 with sparsity (NVIDIA's data sheet), hence 125 TFLOP/s in bf16, of which 40 and 4 %."""
CPU = Device("CPU, 2 cores", 2.2e10, 1.5e11, 2.0e-6, 1e-4, 1e-6, 4e-6, 3.7e10, 16 * 10**9)
"""Two cores at 2.8 GHz: 22 GB/s measured; AVX-512 in fp32; EnCodec decodes 4.25 s of audio per second."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The dimensions of a language model that decide its cost."""

    name: str
    dim: int
    layers: int
    codebooks: int = 4
    card: int = 2048

    @property
    def weights(self) -> int:
        """Weights that a step reads: all matrices but the cross-attention's keys and values, and the heads."""
        return self.layers * 14 * self.dim**2 + self.codebooks * self.card * self.dim


SMALL, MEDIUM, LARGE = Shape("small", 1024, 24), Shape("medium", 1536, 48), Shape("large", 2048, 48)
BYTES = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "fp8": 1.0}
"""Bytes per weight; the scales of int8 and fp8, one per output, are below 1 %."""

KERNELS_PER_LAYER = 8
"""QKV of the norm; append and attend; output with residual; the same three of the cross-attention, its query of the
norm; the two of the MLP."""
KERNELS_PER_STEP = 4
"""The step's begin, the heads, sampling, and the step's end. Both are counted, and kept, by the unit tests."""
_PROMPT_TOKENS = 16
_T5_WEIGHTS, _T5_OPERATORS = 110_000_000, 12 * 25
_PROMPT_KERNELS_PER_LAYER = 5
"""The projection; keys and values converted and written. They are in one CUDA graph."""
_ADMISSION_OPERATORS = 24
"""Copies to the slot of a request, pinned and asynchronous, and the launch of the graph: an estimate."""
_CODEC_FLOPS_PER_FRAME = 8.8e9 / FRAME_RATE_HZ
"""EnCodec 32 kHz's decoder: 4.4 G multiplications per second of mono audio, summed over its layers."""
_CODEC_BYTES_PER_FRAME = 160e6 / FRAME_RATE_HZ
"""Activations: each of four resolutions has 4 MB per second of audio in bf16, which about ten layers read or write."""
_CODEC_OPERATORS = 80
_LSTM_LAUNCHES_PER_FRAME = 2
_CODEC_LOOK_AHEAD_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of one model on one device."""

    device: Device
    shape: Shape
    precision: str = "bf16"
    kv_precision: str = "bf16"
    fixed: float | None = None
    """Time per step beside what bytes and rows cost; measured, or None to count kernels."""
    row: float | None = None
    """Time per row beside its bytes; measured, or None to count operations."""

    @property
    def position_bytes(self) -> float:
        """Bytes of keys and values of one position of one row."""
        return 2 * self.shape.layers * self.shape.dim * BYTES[self.kv_precision]

    def step_bytes(self, positions: int, requests: int) -> float:
        """Bytes that a step reads. `positions`: the sum over the requests of their positions."""
        keys = (CFG_ROWS * positions + _PROMPT_TOKENS * requests) * self.position_bytes
        return self.shape.weights * BYTES[self.precision] + keys

    def step(self, positions: int, requests: int) -> float:
        """One decode step of this many requests. The host's work counts only where it takes longer."""
        rows = CFG_ROWS * requests
        fixed = self.fixed
        if fixed is None:
            fixed = (self.shape.layers * KERNELS_PER_LAYER + KERNELS_PER_STEP) * self.device.launch_gap
        bytes_time = self.step_bytes(positions, requests) / self.device.bandwidth
        if self.row is not None:
            device_time = fixed + bytes_time + self.row * rows
        else:
            # The products read the weights while they compute; the keys are read by other kernels.
            weights = self.shape.weights * BYTES[self.precision] / self.device.bandwidth
            compute = 2 * self.shape.weights * rows / self.device.flops
            device_time = fixed + bytes_time + max(0.0, compute - weights)
        return max(device_time, self.device.host_step + self.device.host_row * requests)

    def prefill(self) -> float:
        """Admission of a request whose prompt is encoded: keys and values of the prompt, and its row's state."""
        kernels = self.shape.layers * _PROMPT_KERNELS_PER_LAYER * self.device.launch_gap
        weights = 2 * self.shape.layers * self.shape.dim**2 * BYTES[self.precision]
        return _ADMISSION_OPERATORS * self.device.host_launch + kernels + weights / self.device.bandwidth

    def encode_prompts(self, prompts: int) -> float:
        """T5 of a batch of prompts, in its own thread and stream."""
        compute = 2 * _T5_WEIGHTS * _PROMPT_TOKENS * prompts / self.device.flops
        read = 2 * _T5_WEIGHTS / self.device.bandwidth
        return _T5_OPERATORS * self.device.host_launch + max(compute, read)

    def decode_busy(self, frames: int) -> float:
        """How long a batch of chunks, `frames` frames of codes in all, keeps the device from a step.

        The rule of sharing: this time is added to the step that runs beside it; the chunk's gaps are not.
        """
        compute = frames * _CODEC_FLOPS_PER_FRAME / self.device.codec_flops
        return max(compute, frames * _CODEC_BYTES_PER_FRAME / self.device.bandwidth)

    def decode(self, frames: int, longest: int) -> float:
        """From a batch of chunks being due to their samples on the host; the longest chunk has `longest` frames."""
        launches = _CODEC_OPERATORS + _LSTM_LAUNCHES_PER_FRAME * (longest + _CODEC_LOOK_AHEAD_FRAMES)
        return launches * self.device.launch_gap + 2 * self.decode_busy(frames)  # It shares the device with a step.

    def pages_limit(self, max_requests: int, window: int, page: int) -> int:
        """Pages of the KV cache: what full-length requests need, or what the memory holds beside the weights."""
        per_request = CFG_ROWS * -(-window // page)
        budget = 0.8 * self.device.memory - self.shape.weights * BYTES[self.precision] - 2e9
        return min(max_requests * per_request, int(budget / (page * self.position_bytes)))


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """One measurement of `benchmarks/gpu.sh`: a step of some requests at one position."""

    requests: int
    position: int
    seconds: float


def calibrated(costs: Costs, steps: Sequence[MeasuredStep]) -> Costs:
    """Fits the fixed time, the bandwidth and the time per row to measured steps, by least squares of relative errors.

    Raises ValueError if the measurements do not determine them: they need two batch sizes and two positions.
    """
    if len({step.requests for step in steps}) < 2 or len({step.position for step in steps}) < 2:
        raise ValueError("a calibration needs steps of at least two batch sizes and two positions")
    rows = [
        [1.0, costs.step_bytes(step.requests * step.position, step.requests), CFG_ROWS * step.requests]
        for step in steps
    ]
    seconds = np.array([step.seconds for step in steps])
    scaled = np.array(rows) / seconds[:, None]
    unit = np.abs(scaled).max(0)
    # Least squares in which none is negative: drop the most negative coefficient until all are positive.
    used = [0, 1, 2]
    while True:
        fit = np.linalg.lstsq(scaled[:, used] / unit[used], np.ones(len(steps)), rcond=None)[0] / unit[used]
        if (fit > 0).all() or len(used) == 1:
            break
        used.pop(int(fit.argmin()))
    found = dict(zip(used, fit.tolist(), strict=True))
    bandwidth = 1 / found[1] if 1 in found else costs.device.bandwidth
    device = replace(costs.device, name=f"{costs.device.name}, calibrated", bandwidth=bandwidth)
    return replace(costs, device=device, fixed=found.get(0, 0.0), row=found.get(2, 0.0))


def calibrated_costs(results: dict[str, Any]) -> Costs:
    """The costs of small on the GPU that the JSON of `benchmarks/gpu.sh` is from, fitted to its steps.

    Raises ValueError if it has too few of them.
    """
    entries = calibration_steps(results)
    precision = entries[0]["precision"] if entries else "bf16"
    basis = Costs(replace(H200, name=results["machine"].get("gpu", "CPU")), SMALL, precision)
    return calibrated(basis, [MeasuredStep(entry["batch"], entry["position"], entry["seconds"]) for entry in entries])


def calibration_steps(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps that `benchmarks/gpu.sh` measured with small: batch, position, seconds and precision of each."""
    return [
        entry
        for name, entries in results["results"].get("small", {}).items()
        if name.startswith("calibration")
        for entry in entries
    ]
