"""The decode step with all of its kernels: how many there are, and that they fit together."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")
pytest.importorskip("triton", reason="The kernels need Triton")

from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from generation_service.models.musicgen.delay_pattern import Codes  # noqa: E402
from generation_service.models.musicgen.lm.linear import build_linear  # noqa: E402
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations  # noqa: E402
from generation_service.models.musicgen.resident.decode_step import StepShape  # noqa: E402
from tests.support.capture_rules import assert_capturable  # noqa: E402
from tests.support.generator_runs import Plan, PlannedConditions, resident_generator, run_plans  # noqa: E402
from tests.support.kernel_operations import kernel_operations  # noqa: E402
from tests.support.tensor_cores import interpreted_with_mma  # noqa: E402
from tests.support.triton_kernels import recorded  # noqa: E402

WINDOW = 60
SHAPE = StepShape(4, 64, 64, samples_any=False)
CROSSFADE = PlannedConditions(((4, 1.0, 0.0), (3, 0.0, 1.0)), negative_tokens=2, prefix_positions=2)
KERNELS_PER_LAYER, KERNELS_AT_THE_ENDS = 8, 4


class LaunchedOperators(TorchDispatchMode):
    """Lists torch's operators that launch a kernel: all but views, and those that only allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        name = func._schema.name.removeprefix("aten::")
        if not func.is_view and name not in ("empty", "empty_strided", "empty_like", "_unsafe_view", "detach"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("combines", [False, True])
@pytest.mark.parametrize("pdl", [False, True])
@pytest.mark.parametrize("channels", ["mono", "stereo"])
def test_a_step_launches_eight_kernels_per_layer_and_four_more(
    channels: str, pdl: bool, combines: bool, request: pytest.FixtureRequest
) -> None:
    """And another one if there are requests with several branches."""
    shape = SHAPE._replace(combines=combines)
    generator = resident_generator(
        request.getfixturevalue(channels), window=WINDOW, slots=4, operations=kernel_operations("fp32", pdl=pdl)
    )
    launched = LaunchedOperators()
    with torch.inference_mode(), recorded():
        generator._step.compute_step(shape)  # The first run allocates counters.
    with torch.inference_mode(), recorded() as launches, launched:
        generator._step.compute_step(shape)
    assert launched.names == []
    assert len(launches) == KERNELS_PER_LAYER * generator.config.num_layers + KERNELS_AT_THE_ENDS + combines
    early = [bool(launch.kwargs.get("launch_pdl")) for launch in launches]
    assert early == [False, *[pdl] * (len(launches) - 1)], "the first kernel of a step waits for the step before"


def test_a_step_of_kernels_can_be_captured(mono: Path) -> None:
    generator = resident_generator(mono, window=WINDOW, slots=4, operations=kernel_operations("fp32", pdl=False))
    with torch.inference_mode(), recorded() as launches:
        generator._step.compute_step(SHAPE)
        launches.clear()
        assert_capturable(lambda: generator._step.compute_step(SHAPE))
    first, second = launches[: len(launches) // 2], launches[len(launches) // 2 :]
    assert [launch.grid for launch in first] == [launch.grid for launch in second]


@pytest.mark.parametrize("windows", [pytest.param((), marks=pytest.mark.slow), (CROSSFADE,)], ids=["plain", "branches"])
def test_all_kernels_together_yield_the_logits_and_codes_of_their_definitions(
    mono: Path, windows: tuple[PlannedConditions, ...]
) -> None:
    plan = Plan(4, 1, sampling={"top_k": 20}, windows=windows)
    with interpreted_with_mma():
        codes, logits = run_one_layer(mono, plan, kernel_operations("fp32", pdl=False))
    definitions = DecodeOperations(partial(build_linear, precision="fp32"))
    expected_codes, expected_logits = run_one_layer(mono, plan, definitions)
    assert np.array_equal(codes, expected_codes)
    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=1e-4)


def run_one_layer(folder: Path, plan: Plan, operations: DecodeOperations) -> tuple[Codes, Tensor]:
    """Of one layer alone, because the interpreter is slow. Returns codes, [K, 1], and the logits of all steps."""
    logits: list[Tensor] = []

    def sample_checked(of_step: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        logits.append(of_step.clone())
        return operations.sample_checked(of_step, *arguments, **options)

    recording = replace(operations, sample_checked=sample_checked)
    generator = resident_generator(folder, window=WINDOW, slots=1, operations=recording, prefill_positions=4)
    generator._step._weights = replace(generator._step._weights, layers=generator._step._weights.layers[:1])
    del generator.memory.layers[1:]
    (codes,) = run_plans(generator, [plan], WINDOW)
    return codes, torch.stack(logits)
