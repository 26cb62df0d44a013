"""The decode step keeps the rules of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from generation_service.models.musicgen.code_generator import Reservation  # noqa: E402
from generation_service.models.musicgen.conditions import WindowConditions  # noqa: E402
from generation_service.models.musicgen.lm.device_linear import build_device_linear  # noqa: E402
from generation_service.models.musicgen.resident.branches import StepLayout, lay_out_step  # noqa: E402
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations  # noqa: E402
from generation_service.models.musicgen.resident.decode_step import PrefillShape, PromptShape, StepShape  # noqa: E402
from generation_service.models.musicgen.resident.resident_code_generator import ResidentCodeGenerator  # noqa: E402
from generation_service.models.musicgen.sliding_window import WindowedCodes  # noqa: E402
from tests.support.capture_rules import CaptureViolation, assert_capturable  # noqa: E402
from tests.support.generator_runs import resident_generator  # noqa: E402
from tests.support.musicgen_runs import greedy  # noqa: E402

WINDOW = 60
OPERATIONS = DecodeOperations(partial(build_device_linear, weight_format="fp32", implementation="torch"))
"""oneDNN's packed weights have no address."""


@pytest.fixture
def running(mono: Path) -> ResidentCodeGenerator:
    """A generator with three requests that have launched steps."""
    return run_three(resident_generator(mono, window=WINDOW, slots=4, operations=OPERATIONS, prefill_positions=8))


def run_three(generator: ResidentCodeGenerator) -> ResidentCodeGenerator:
    config = generator.config
    rows = []
    for frames in (50, 40, 30):
        rows.append(generator.open(greedy("", frames), Reservation(frames + config.max_delay, frames)))
        codes = WindowedCodes(config.delays, frames, config.card, WINDOW)
        conditions = WindowConditions.from_text(torch.randn(frames, config.dim))
        generator.begin_window(rows[-1], codes.window, conditions)
    for _ in range(3):
        generator.launch(rows)
        generator.collect(wait=True)
    return generator


@pytest.mark.parametrize("combines", [False, True])
@pytest.mark.parametrize("samples_any", [False, True])
@pytest.mark.parametrize("positions", [32, 64])
def test_step_can_be_captured(
    running: ResidentCodeGenerator, samples_any: bool, positions: int, combines: bool
) -> None:
    """Also after the host has changed the slots and their states, as it does between two steps."""
    with torch.inference_mode():
        shape = StepShape(4, positions, 64, samples_any, combines)
        running._prepare(shape)
        trace = assert_capturable(lambda: running._step.compute_step(shape), between=lambda: join_and_leave(running))
    assert len(trace.operators) > 100


@pytest.mark.parametrize("has_prefix", [False, True])
def test_prefill_can_be_captured(running: ResidentCodeGenerator, has_prefix: bool) -> None:
    def read_another_slot() -> None:
        running._state.prefill.copy_(torch.tensor([2, 16, 20]))
        running._state.write_prefix([torch.ones(4, running.config.dim), None])

    with torch.inference_mode():
        trace = assert_capturable(
            lambda: running._step.compute_prefill(PrefillShape(64, 64, has_prefix)), between=read_another_slot
        )
    assert len(trace.operators) > 50


def test_prompt_can_be_captured(running: ResidentCodeGenerator) -> None:
    with torch.inference_mode():
        trace = assert_capturable(
            lambda: running._step.compute_prompt(PromptShape(64)), between=lambda: join_and_leave(running)
        )
    assert len(trace.operators) > 20


@pytest.mark.parametrize("spoil", [lambda logits: logits.sum().item(), lambda logits: logits[logits > 0], Tensor.cpu])
def test_step_that_breaks_a_rule_is_noticed(mono: Path, spoil: Callable[[Tensor], object]) -> None:
    def sample_checked(logits: Tensor, *arguments: object, **options: object) -> tuple[Tensor, Tensor]:
        spoil(logits)
        zeros = torch.zeros(logits.shape[0], 4, dtype=torch.int64, device=logits.device)
        return zeros, zeros == 0

    generator = resident_generator(
        mono, window=WINDOW, slots=1, operations=replace(OPERATIONS, sample_checked=sample_checked)
    )
    with torch.inference_mode(), pytest.raises(CaptureViolation):
        assert_capturable(lambda: generator._step.compute_step(StepShape(1, 32, 64, False)))


def join_and_leave(generator: ResidentCodeGenerator) -> None:
    config = generator.config
    row = generator.open(greedy("", 9), Reservation(12, 5))
    codes = WindowedCodes(config.delays, 9, config.card, WINDOW)
    generator.begin_window(row, codes.window, WindowConditions.from_text(torch.randn(5, config.dim)))
    sources = lay_out_step([], 4, combines=True).sources
    generator._select(StepLayout([row.slots[0], 0], sources))
