"""Joining new music to what is kept: the rest is the same to the bit, and no joint clicks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from generation_service.joining.crossfade import match_level
from generation_service.joining.edit_joiner import EditJoiner
from generation_service.joining.edit_plan import EditKind, EditPlan, plan_edit
from generation_service.models.base import FloatArray
from tests.support.joints import click, level_jump_db, music

RATE = 32_000
SOURCE = music(6.0, RATE)
BLOCK = 1280


def join(plan: EditPlan, generated: FloatArray, block: int = BLOCK, source: FloatArray = SOURCE) -> FloatArray:
    """The whole result."""
    head, tail = plan.head_frames, plan.tail_start
    compared = max(plan.joint_frames, plan.alignment_frames)
    joiner = EditJoiner(plan, source[head - plan.lead_frames : head], source[tail : tail + compared])
    assert len(generated) == plan.generated_frames
    parts = [joiner.feed(generated[at : at + block]) for at in range(0, len(generated), block)]
    return np.concatenate(
        [source[: head - plan.lead_frames], *parts, *joiner.finish(), source[tail + plan.joint_frames :]]
    )


def repaint(start: float, end: float) -> EditPlan:
    return plan_edit(EditKind.REPAINT, len(SOURCE), RATE, start=round(start * RATE), end=round(end * RATE))


def reconstruct(plan: EditPlan, seed: int = 7) -> FloatArray:
    """What a model generates: the end of the head, a little different and quieter, and other music."""
    head = plan.head_frames
    lead = SOURCE[head - plan.lead_frames : head] + np.random.default_rng(seed).normal(0, 0.01, (plan.lead_frames, 2))
    rest = SOURCE[head : head + RATE]
    rest = np.concatenate([rest, music(6.0, RATE, seed=seed)])[: plan.generated_frames - plan.lead_frames]
    return (0.7 * np.concatenate([lead, rest])).astype(np.float32)


def test_everything_outside_the_repainted_part_and_its_joints_is_the_source():
    plan = repaint(2.0, 4.0)
    result = join(plan, reconstruct(plan))
    assert len(result) == len(SOURCE)
    head, tail = plan.head_frames - plan.lead_frames, plan.tail_start + plan.joint_frames
    assert np.array_equal(result[:head], SOURCE[:head])
    assert np.array_equal(result[tail:], SOURCE[tail:])
    assert not np.array_equal(
        result[plan.head_frames + RATE : plan.tail_start], SOURCE[plan.head_frames + RATE : plan.tail_start]
    )


@pytest.mark.parametrize("block", [1, 100, 1280, 100_000])
def test_result_does_not_depend_on_the_blocks(block):
    plan = repaint(2.0, 2.1) if block == 1 else repaint(2.0, 4.0)
    generated = reconstruct(plan)
    assert np.array_equal(join(plan, generated, block), join(plan, generated, 777))


def test_joints_do_not_click_where_a_plain_cut_does():
    plan = repaint(2.2, 4.2)  # Between two drums.
    generated = reconstruct(plan)
    result = join(plan, generated)
    cut = np.concatenate(
        [SOURCE[: plan.head_frames], generated[plan.lead_frames :][: plan.new_frames] + 0.1, SOURCE[plan.tail_start :]]
    )
    for at in (plan.head_frames, plan.tail_start):
        assert click(cut, at, RATE) > 3
        for edge in (at - plan.lead_frames, at, at + plan.joint_frames):
            assert click(result, edge, RATE) < 1.5


def test_joints_pass_from_the_source_to_what_is_new_and_back():
    plan = repaint(2.0, 4.0)
    generated = music(6.0, RATE, seed=7)[1000:][: plan.generated_frames]
    result = join(plan, generated)
    gain = match_level(generated[: plan.lead_frames], SOURCE[plan.head_frames - plan.lead_frames : plan.head_frames])
    new = generated * np.float32(gain)
    for at, before, after in (
        (plan.head_frames - plan.lead_frames, SOURCE[plan.head_frames - plan.lead_frames], new[plan.lead_frames - 1]),
        (plan.tail_start, new[plan.lead_frames + plan.new_frames], SOURCE[plan.tail_start + plan.joint_frames - 1]),
    ):
        last = at + (plan.lead_frames if at < plan.head_frames else plan.joint_frames) - 1
        assert result[at] == pytest.approx(before, abs=1e-6)
        assert result[last] == pytest.approx(after, abs=2e-3)


def test_new_music_gets_the_level_of_the_source():
    plan = plan_edit(EditKind.EXTEND_RIGHT, len(SOURCE), RATE, added=RATE)
    result = join(plan, (0.7 * np.concatenate([SOURCE[-plan.lead_frames :], SOURCE[:RATE]])).astype(np.float32))
    assert len(result) == len(SOURCE) + RATE
    assert np.abs(result[-RATE // 2 :] - SOURCE[RATE // 2 : RATE]).max() < 1e-3


def test_music_before_the_source_is_moved_until_the_beats_meet():
    plan = plan_edit(EditKind.EXTEND_LEFT, len(SOURCE), RATE, added=2 * RATE)
    beat = RATE // 2
    early = music(8.0, RATE, seed=3)[3000 : 3000 + plan.generated_frames]  # Its beats are 3000 frames early.
    result = join(plan, early)
    assert len(result) == len(SOURCE) + 2 * RATE
    assert np.array_equal(result[2 * RATE + plan.joint_frames :], SOURCE[plan.joint_frames :])
    onset = np.argmax(np.abs(np.diff(result[: beat + 100].mean(axis=1), n=1)))
    assert min(onset % beat, beat - onset % beat) < 0.012 * RATE
    assert level_jump_db(result, 2 * RATE, RATE, 0.5) < 1.5


def test_extension_of_something_very_short_has_no_lead():
    source = SOURCE[:1000]
    plan = plan_edit(EditKind.EXTEND_LEFT, len(source), RATE, added=RATE)
    result = join(plan, music(3.0, RATE)[: plan.generated_frames], source=source)
    assert len(result) == RATE + 1000


def test_extension_of_something_very_short_has_its_length_wherever_it_fits_best():
    source = SOURCE[:1000]
    plan = plan_edit(EditKind.EXTEND_LEFT, len(source), RATE, added=RATE)
    quiet = np.zeros((plan.generated_frames, 2), np.float32)
    quiet[-1500:-500] = source  # Later than the new music may be moved.
    assert len(join(plan, quiet, source=source)) == RATE + 1000


def test_music_in_front_is_held_once_while_it_is_generated():
    plan = plan_edit(EditKind.EXTEND_LEFT, len(SOURCE), RATE, added=20 * RATE)
    block = np.ones((BLOCK, 2), np.float32)
    tracemalloc.start()
    try:
        joiner = EditJoiner(plan, SOURCE[:0], SOURCE[: plan.alignment_frames])
        for start in range(0, plan.generated_frames, BLOCK):
            assert not len(joiner.feed(block[: plan.generated_frames - start]))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1.5 * plan.generated_frames * block[0].nbytes
