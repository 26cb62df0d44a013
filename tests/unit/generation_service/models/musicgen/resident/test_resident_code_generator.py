"""The resident generator, run on the CPU: its codes equal the eager generator's, which equal audiocraft's, and depend
on nothing but the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")

from torch import Tensor  # noqa: E402

from dgx_music.errors import InvalidArgument, ResourceExhausted  # noqa: E402
from generation_service.models.musicgen.code_generator import Reservation  # noqa: E402
from generation_service.models.musicgen.conditions import WindowConditions  # noqa: E402
from generation_service.models.musicgen.lm.linear import build_linear  # noqa: E402
from generation_service.models.musicgen.resident.decode_operations import DecodeOperations  # noqa: E402
from generation_service.models.musicgen.resident.decode_step import PrefillShape, PromptShape, StepShape  # noqa: E402
from generation_service.models.musicgen.resident.resident_code_generator import ResidentCodeGenerator  # noqa: E402
from generation_service.models.musicgen.sampling import sample_checked  # noqa: E402
from generation_service.models.musicgen.sliding_window import WindowedCodes  # noqa: E402
from tests.support.generator_runs import (  # noqa: E402
    LateEvent,
    Plan,
    eager_generator,
    resident_generator,
    run_plans,
)

WINDOW = 92
"""With the delays 95 positions, or 3 pages."""
SLOTS = 9
LENGTHS = (32, 64)
PLANS = (
    Plan(4, 80),
    Plan(90, 60, joins_at=3, paused_every=3),
    Plan(1, 12, joins_at=5),
    Plan(0, 20, joins_at=6),
    Plan(11, 33, joins_at=6, prompt_frames=17),
    Plan(2, 100, joins_at=7, cancelled_at=25),
    Plan(5, 110, joins_at=8, paused_every=7),
    Plan(2, 1, joins_at=9),
    Plan(17, 25, joins_at=9),
    Plan(3, 40, joins_at=25),  # Takes the place of the cancelled request, of which a step is still running.
    Plan(8, 61, joins_at=26, prompt_frames=1),
)
"""Up to 9 requests at once, of which one needs two windows."""


def build(folder: Path, **options: Any) -> ResidentCodeGenerator:
    options = {"slots": SLOTS, "prefill_positions": 8, "length_buckets": LENGTHS, "copy_results": LateEvent, **options}
    return resident_generator(folder, window=WINDOW, **options)


@pytest.fixture(scope="module")
def generator(mono: Path) -> ResidentCodeGenerator:
    return build(mono)


@pytest.mark.parametrize("channels", ["mono", pytest.param("stereo", marks=pytest.mark.slow)])
def test_greedy_codes_equal_the_eager_generator(
    channels: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder: Path = request.getfixturevalue(channels)
    generator, recorded_shapes = build(folder), []
    replay: Callable[[Any], None] = generator._graphs.replay
    monkeypatch.setattr(generator._graphs, "replay", lambda shape: (recorded_shapes.append(shape), replay(shape)))
    plans = [replace(plan, sampling={"temperature": 0}) for plan in PLANS]
    expected = run_plans(eager_generator(folder), plans, WINDOW)
    actual = run_plans(generator, plans, WINDOW)
    assert len({tuple(codes[:, -1].tolist()) for codes in expected}) > 5, "the codes depend on the prompt"
    for plan, want, got in zip(plans, expected, actual, strict=True):
        count = got.shape[1] if plan.cancelled_at is not None else plan.prompt_frames + plan.frames
        assert count > 10 or plan.frames == 1
        assert np.array_equal(got, want[:, :count]), plan
    steps = [shape for shape in recorded_shapes if isinstance(shape, StepShape)]
    pieces = [shape for shape in recorded_shapes if isinstance(shape, PrefillShape)]
    assert {shape.batch for shape in steps} == {1, 2, 4, 8, 9}, "every batch bucket"
    assert {shape.positions for shape in steps} == {32, 64, 96}, "every length bucket"
    assert {shape.positions for shape in pieces} == {32, 64}
    assert {shape.tokens for shape in steps} == {64, 512}


@pytest.mark.slow
def test_sampled_codes_depend_on_the_request_alone(mono: Path, generator: ResidentCodeGenerator) -> None:
    """Not on the other requests, the slot, the pages, the batch and length bucket, pauses, or when results arrive."""
    samplings: list[dict[str, Any]] = [{"top_k": 20}, {}, {"top_p": 0.9, "top_k": 0}, {"temperature": 0.7, "top_k": 60}]
    plans = [replace(plan, sampling=samplings[index % 4]) for index, plan in enumerate(PLANS)]
    together = run_plans(generator, plans, WINDOW)
    backwards = run_plans(generator, [replace(plan, paused_every=0) for plan in reversed(plans)], WINDOW)[::-1]
    alone = build(mono, length_buckets=(), prefill_positions=96)
    for index, (plan, one, other) in enumerate(zip(plans, together, backwards, strict=True)):
        count = min(one.shape[1], other.shape[1])
        assert np.array_equal(one[:, :count], other[:, :count]), plan
        if index % 2 == 0:
            (expected,) = run_plans(alone, [replace(plan, joins_at=0, paused_every=0)], WINDOW)
            assert np.array_equal(one, expected), plan
    assert not np.array_equal(together[0][:, :20], together[6][:, :20]), "the codes depend on the seed"
    two_windows = replace(plans[6], joins_at=0, paused_every=0)
    assert np.array_equal(together[6], run_plans(eager_generator(mono), [two_windows], WINDOW)[0])


def test_warm_up_captures_the_usual_shapes_and_changes_nothing(mono: Path) -> None:
    generator = build(mono)
    row = generator.open(PLANS[0].parameters(), Reservation(40, PLANS[0].tokens))
    codes = WindowedCodes(generator.config.delays, 37, generator.config.card, WINDOW)
    text = PLANS[0].text(generator.config.dim)
    generator.begin_window(row, codes.window, WindowConditions.from_text(text))
    generator.launch([row])
    state = generator._state
    by_slot = (state.codes, state.tables, state.prompt_tables, state.prompt_tokens)
    tensors = (*by_slot, state.integers.t(), state.floats.t())
    before = [tensor[:SLOTS].clone() for tensor in tensors]
    pages = [layer.keys[1:].clone() for layer in generator.memory.layers]
    generator.warm_up()
    for tensor, old in zip(tensors, before, strict=True):
        assert torch.equal(tensor[:SLOTS], old)
    for layer, page in zip(generator.memory.layers, pages, strict=True):
        assert torch.equal(layer.keys[1:], page)
    for batch, positions, tokens in product((1, 2, 4, 8, 9), (32, 64, 96), (64, 512)):
        assert StepShape(batch, positions, tokens, False) in generator._graphs
        assert PrefillShape(positions, tokens) in generator._graphs


def test_warm_up_of_a_model_that_prepends_its_text_captures_prefixes(melody: Path) -> None:
    generator = build(melody)
    generator.warm_up()
    for positions in (32, 64, 96):
        assert PrefillShape(positions, 64, has_prefix=True) in generator._graphs
        assert PrefillShape(positions, 64) in generator._graphs
        assert StepShape(9, positions, 512, False) not in generator._graphs, "there is no cross-attention"
    assert PromptShape(64) not in generator._graphs


def test_run_ahead_is_two_steps(generator: ResidentCodeGenerator) -> None:
    row = generator.open(PLANS[0].parameters(), Reservation(40))
    codes = WindowedCodes(generator.config.delays, 37, generator.config.card, WINDOW)
    generator.begin_window(row, codes.window, WindowConditions.from_text(None))
    counts = []
    for _ in range(4):
        generator.launch([row])
        counts.append(len(generator.collect(wait=False)))
    assert counts == [0, 1, 1, 1], "the results of a step arrive once the next one is launched"
    assert len(generator.collect(wait=True)) == 1
    assert generator.collect(wait=True) == []
    generator.close(row)


def test_results_of_a_closed_row_are_marked_and_its_place_is_used_at_once(generator: ResidentCodeGenerator) -> None:
    window = WindowedCodes(generator.config.delays, 20, generator.config.card, WINDOW).window
    old = generator.open(PLANS[0].parameters(), Reservation(40))
    generator.begin_window(old, window, WindowConditions.from_text(None))
    generator.launch([old])
    generator.close(old)
    new = generator.open(PLANS[0].parameters(), Reservation(40))
    generator.begin_window(new, window, WindowConditions.from_text(None))
    assert new.slots == old.slots
    assert set(new.pages.rows.ravel()) == set(old.pages.rows.ravel())
    generator.launch([new])
    (first, *_), (second, *_) = (result.rows for _ in range(2) for result in generator.collect(wait=True))
    assert (first, second) == (old, new)
    assert not first.is_open
    generator.close(new)


def test_row_that_is_not_finite_is_the_only_one(generator: ResidentCodeGenerator) -> None:
    """A damaged page of one request. The request that gets the page next is well."""
    config = generator.config
    rows, codes = [], []
    for _ in range(3):
        codes.append(WindowedCodes(config.delays, 20, config.card, WINDOW))
        rows.append(generator.open(PLANS[0].parameters(), Reservation(23)))
        generator.begin_window(rows[-1], codes[-1].window, WindowConditions.from_text(None))
    generator.launch(rows)
    generator.collect(wait=True)
    for layer in generator.memory.layers:
        for stored in (layer.keys, layer.values):
            stored[int(rows[1].pages.rows[1, 0])] = torch.nan
    for _ in range(2):
        generator.launch(rows)
        (result,) = generator.collect(wait=True)
        assert result.is_finite.tolist() == [True, False, True]
        assert np.array_equal(result.codes[0], result.codes[2])
        assert ((result.codes >= 0) & (result.codes < config.card)).all()
    generator.close(rows[1])
    for row in (rows[0], rows[2]):
        generator.close(row)
    run_plans(generator, PLANS[:4], WINDOW)  # Requires that all logits are finite.


def test_prompt_that_is_too_long_and_a_full_batch_are_rejected(mono: Path) -> None:
    generator = build(mono, slots=1)
    with pytest.raises(InvalidArgument, match="has 513 tokens; on a GPU, this model reads at most 512"):
        generator.open(PLANS[0].parameters(), Reservation(40, 513))
    with pytest.raises(InvalidArgument, match="needs 96 positions with all that is read; this model has 95"):
        generator.open(PLANS[0].parameters(), Reservation(96))
    row = generator.open(PLANS[0].parameters(), Reservation(40))
    with pytest.raises(ResourceExhausted, match="all 1 places in the batch are taken"):
        generator.open(PLANS[0].parameters(), Reservation(40))
    generator.close(row)


def test_logits_are_the_same_on_both_sides_of_each_length_bucket(mono: Path) -> None:
    plan = Plan(5, WINDOW, sampling={"temperature": 0})
    bucketed, whole = (record_logits(mono, plan, length_buckets=lengths) for lengths in (LENGTHS, ()))
    assert len(bucketed) == len(whole) == WINDOW + 3
    for position, (one, other) in enumerate(zip(bucketed, whole, strict=True)):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5, msg=lambda text, at=position: f"{at}: {text}")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float8_e4m3fn, 0.2)])
def test_narrow_kv_cache_yields_nearly_the_same_logits(mono: Path, dtype: torch.dtype, tolerance: float) -> None:
    plan = Plan(12, 1, prompt_frames=40)
    exact, narrow = (record_logits(mono, plan, dtype=each)[0] for each in (torch.float32, dtype))
    assert 0 < (narrow - exact).norm() / exact.norm() < tolerance
    sizes = [build(mono, slots=1, dtype=each).memory.limit_bytes for each in (torch.float32, dtype)]
    assert sizes[0] == sizes[1] * 4 // dtype.itemsize


def record_logits(folder: Path, plan: Plan, **options: Any) -> list[Tensor]:
    """The logits of each step of a request."""
    logits: list[Tensor] = []

    def record(of_step: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, Tensor]:
        logits.append(of_step)
        return sample_checked(of_step, *arguments, **options)

    operations = DecodeOperations(lambda weight: build_linear(weight, "fp32"), sample_checked=record)
    generator = build(folder, slots=1, operations=operations, **options)
    generator.warm_up()  # Later it would compute steps of nobody.
    logits.clear()
    run_plans(generator, [plan], WINDOW)
    return logits
