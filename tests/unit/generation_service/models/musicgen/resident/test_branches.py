"""Requests with several branches, negative texts and prefixes on the resident generator, run on the CPU: their codes
equal the eager generator's, and neither they nor plain requests depend on each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="MusicGen needs torch")


from generation_service.models.musicgen.resident.branches import lay_out_step  # noqa: E402
from generation_service.models.musicgen.resident.decode_step import PrefillShape, PromptShape, StepShape  # noqa: E402
from generation_service.models.musicgen.resident.resident_code_generator import ResidentCodeGenerator  # noqa: E402
from generation_service.models.musicgen.sliding_window import WindowedCodes  # noqa: E402
from tests.support.generator_runs import (  # noqa: E402
    LateEvent,
    Plan,
    PlannedConditions,
    eager_generator,
    resident_generator,
    run_plans,
)

WINDOW = 60
PREFIX = 37
SLOTS = 16
GREEDY = {"temperature": 0}
TWO = PlannedConditions(((4, 1.0, 0.0), (90, 0.0, 1.0)))
THREE = PlannedConditions(((6, 0.5, 0.5), (2, 0.3, 0.2), (9, 0.2, 0.3)), negative_tokens=3)
FOUR = PlannedConditions(((6, 0.5, 0.0), (2, 0.3, 0.6), (9, 0.2, 0.2), (5, 0.0, 0.2)), prefix_positions=3)
STYLE = PlannedConditions(((7, 5.0, 5.0), (0, -4.0, -4.0)), prefix_positions=6)
ONE = PlannedConditions(((90, 1.0, 1.0),))
NEGATIVE = PlannedConditions(((5, 1.0, 1.0),), negative_tokens=80)
PREFIXED = PlannedConditions(((0, 1.0, 1.0),), prefix_positions=PREFIX)
PLANS = (
    Plan(1, 20, windows=(TWO,)),
    Plan(2, 40),
    Plan(3, 70, joins_at=2, windows=(TWO, ONE), paused_every=5),
    Plan(4, 20, joins_at=3, windows=(NEGATIVE,)),
    Plan(5, 25, joins_at=4, windows=(PREFIXED,), prompt_frames=9),
    Plan(6, 12, joins_at=4, windows=(THREE,)),
    Plan(7, 130, joins_at=5, windows=(NEGATIVE, FOUR, PREFIXED, ONE), cancelled_at=120),
    Plan(0, 9, joins_at=6, windows=(STYLE,)),
    Plan(8, 30, joins_at=30, windows=(ONE,), prompt_frames=17),
)
"""They join and leave while others run, and change the number of their rows with the window."""


def build(folder: Path, **options: Any) -> ResidentCodeGenerator:
    options = {"slots": SLOTS, "prefill_positions": 8, "length_buckets": (32, 64), **options}
    options = {"copy_results": LateEvent, **options}
    return resident_generator(folder, window=WINDOW + PREFIX, **options)


@pytest.fixture(scope="module")
def generator(mono: Path) -> ResidentCodeGenerator:
    return build(mono)


def record(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> list[Any]:
    """The last arguments of all calls of a method."""
    calls: list[Any] = []
    method: Callable[..., None] = getattr(target, name)

    def call(*arguments: Any) -> None:
        calls.append(arguments[-1])
        method(*arguments)

    monkeypatch.setattr(target, name, call)
    return calls


@pytest.mark.parametrize("channels", [pytest.param("mono", marks=pytest.mark.slow), "stereo"])
def test_greedy_codes_equal_the_eager_generator(channels: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(channels)
    plans = [replace(plan, sampling=GREEDY) for plan in PLANS]
    expected = run_plans(eager_generator(folder), plans, WINDOW)
    for plan, want, got in zip(plans, expected, run_plans(build(folder), plans, WINDOW), strict=True):
        count = got.shape[1] if plan.cancelled_at is not None else plan.prompt_frames + plan.frames
        assert count > 8
        assert np.array_equal(got, want[:, :count]), plan


@pytest.mark.parametrize(
    "changed",
    [
        PlannedConditions(((4, 1.0, 0.5), (90, 0.0, 0.5))),
        PlannedConditions(((4, 1.0, 0.0), (80, 0.0, 1.0))),
        PlannedConditions(((4, 1.0, 0.0), (90, 0.0, 1.0)), negative_tokens=1),
        PlannedConditions(((4, 1.0, 0.0), (90, 0.0, 1.0)), prefix_positions=1),
        PlannedConditions(((4, 0.9, 0.0), (90, 0.0, 0.9), (2, 0.1, 0.1))),
    ],
    ids=["weight", "text", "negative", "prefix", "branch"],
)
def test_codes_depend_on_each_part_of_the_conditions(
    generator: ResidentCodeGenerator, changed: PlannedConditions
) -> None:
    one, other = run_plans(
        generator, [Plan(1, 25, sampling=GREEDY, windows=(each,)) for each in (TWO, changed)], WINDOW
    )
    assert not np.array_equal(one, other)


@pytest.mark.slow
def test_sampled_codes_depend_on_the_request_alone(mono: Path, generator: ResidentCodeGenerator) -> None:
    """Not on requests with other numbers of branches, the slots, or the place in the batch."""
    plans = [replace(plan, sampling={"top_k": 30}) for plan in PLANS]
    together = run_plans(generator, plans, WINDOW)
    backwards = run_plans(generator, [replace(plan, paused_every=0) for plan in reversed(plans)], WINDOW)[::-1]
    alone = build(mono, slots=1, prefill_positions=96, length_buckets=())
    for index, (plan, one, other) in enumerate(zip(plans, together, backwards, strict=True)):
        count = min(one.shape[1], other.shape[1])
        assert np.array_equal(one[:, :count], other[:, :count]), plan
        if index % 2 == 0:
            (expected,) = run_plans(alone, [replace(plan, joins_at=0, paused_every=0, cancelled_at=None)], WINDOW)
            assert np.array_equal(one, expected[:, : one.shape[1]]), plan


def test_plain_requests_run_the_same_shapes_as_ever(
    generator: ResidentCodeGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And requests with a negative text, too: it is a text in a row that is there anyway."""
    shapes = record(monkeypatch, generator._graphs, "replay")
    run_plans(generator, [Plan(4, 9), Plan(5, 9, windows=(NEGATIVE,))], WINDOW)
    assert {shape for shape in shapes if isinstance(shape, StepShape)} == {
        StepShape(2, 32, 512, samples_any=False, combines=False)
    }
    assert [shape for shape in shapes if isinstance(shape, PrefillShape)] == []
    assert len([shape for shape in shapes if isinstance(shape, PromptShape)]) == 3
    shapes.clear()
    run_plans(generator, [Plan(4, 9), Plan(5, 9, windows=(PlannedConditions(((5, 0.5, 0.5), (6, 0.5, 0.5))),))], WINDOW)
    assert {shape for shape in shapes if isinstance(shape, StepShape)} == {
        StepShape(4, 32, 64, samples_any=False, combines=True)
    }


def test_only_texts_that_change_are_projected(
    generator: ResidentCodeGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = record(monkeypatch, generator, "_project_text")
    windows = (
        PlannedConditions(((4, 1.0, 1.0),), negative_tokens=3),
        PlannedConditions(((4, 1.0, 0.0), (5, 0.0, 1.0)), negative_tokens=3),
        PlannedConditions(((5, 1.0, 1.0),), negative_tokens=3),
        PlannedConditions(((5, 0.5, 0.5), (5, 0.5, 0.5))),
        PlannedConditions(((5, 0.5, 0.5), (6, 0.5, 0.5))),
    )
    run_plans(generator, [Plan(1, WINDOW + 4 * WINDOW * 3 // 5, windows=windows)], WINDOW)
    assert [len(text) for text in texts] == [4, 3, 5, 5, 6], (
        "the second window's second text stays where it is until it changes"
    )


def test_branch_that_was_away_for_a_window_still_has_its_text(mono: Path, generator: ResidentCodeGenerator) -> None:
    """It is in the same slot as a text that has changed meanwhile."""
    windows = (
        PlannedConditions(((6, 0.5, 0.5), (2, 0.3, 0.3), (90, 0.2, 0.2))),
        PlannedConditions(((6, 0.5, 0.5), (5, 0.5, 0.5))),
        PlannedConditions(((6, 0.3, 0.3), (5, 0.3, 0.3), (90, 0.4, 0.4))),
    )
    plan = Plan(1, WINDOW + 2 * WINDOW * 3 // 5, windows=windows, sampling=GREEDY)
    (codes,) = run_plans(generator, [plan], WINDOW)
    assert np.array_equal(codes, run_plans(eager_generator(mono), [plan], WINDOW)[0])


def test_request_with_all_branches_runs_alone_in_a_batch_of_one(mono: Path) -> None:
    plan = Plan(3, 20, windows=(FOUR,), sampling=GREEDY)
    (codes,) = run_plans(build(mono, slots=1), [plan], WINDOW)
    assert np.array_equal(codes, run_plans(eager_generator(mono), [plan], WINDOW)[0])


def test_layout_of_a_step_lists_companions_after_all_requests(generator: ResidentCodeGenerator) -> None:
    rows = []
    for conditions in (ONE, FOUR, TWO):
        plan = Plan(1, 10, windows=(conditions,))
        rows.append(generator.open(plan.parameters(), plan.reservation(13)))
        codes = WindowedCodes(generator.config.delays, 10, generator.config.card, WINDOW)
        generator.begin_window(rows[-1], codes.window, conditions.build(generator.config.dim))
    layout = lay_out_step(rows, SLOTS)
    (plain,), (first, *others), (leader, companion) = (row.slots for row in rows)
    assert layout.slots == [plain, first, leader, *others, companion]
    assert layout.sources is not None
    assert layout.sources[:6].tolist() == [
        [SLOTS, 0, 0, 0, 0],
        [first, 2, 6, 7, 8],
        [leader, 4, 10, 4, 4],
        [first, 2, 6, 7, 8],
        [first, 2, 6, 7, 8],
        [leader, 4, 10, 4, 4],
    ]
    assert layout.sources[6:].tolist() == [[SLOTS, *[2 * index] * 4] for index in range(6, SLOTS)]
    assert lay_out_step(rows[:1], SLOTS).sources is None
    for row in rows:
        generator.close(row)


def test_logits_of_any_branch_that_are_not_finite_fail_the_request_alone(mono: Path) -> None:
    generator = build(mono)
    rows = []
    for conditions in (ONE, THREE, THREE):
        plan = Plan(1, 10, windows=(conditions,))
        rows.append(generator.open(plan.parameters(), plan.reservation(13)))
        codes = WindowedCodes(generator.config.delays, 10, generator.config.card, WINDOW)
        generator.begin_window(rows[-1], codes.window, conditions.build(generator.config.dim))
    generator.launch(rows)
    assert generator.collect(wait=True)[0].is_finite.all()
    last_branch = rows[1].pages.rows[3]
    for layer in generator.memory.layers:
        layer.values[int(last_branch[0])] = torch.nan
    generator.launch(rows)
    (result,) = generator.collect(wait=True)
    assert result.is_finite.tolist() == [True, False, True]
