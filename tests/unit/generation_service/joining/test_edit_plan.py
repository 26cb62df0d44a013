"""Where the new part of an edit goes."""

from __future__ import annotations

import pytest

from generation_service.joining.edit_plan import EditKind, EditPlan, plan_edit

RATE = 1000


def plan(kind: EditKind, source: int = 30_000, **values: int) -> EditPlan:
    return plan_edit(kind, source, RATE, **values)


def test_extension_to_the_right_continues_the_end():
    edit = plan(EditKind.EXTEND_RIGHT, added=5000)
    assert (edit.frames, edit.head_frames, edit.tail_start, edit.new_frames) == (35_000, 30_000, 30_000, 5000)
    assert edit.context == (20_000, 30_000)
    assert (edit.lead_frames, edit.joint_frames, edit.alignment_frames) == (40, 0, 0)
    assert edit.generated_frames == 40 + 5000


def test_extension_to_the_left_continues_the_start_and_is_aligned_with_it():
    edit = plan(EditKind.EXTEND_LEFT, added=5000)
    assert (edit.frames, edit.head_frames, edit.tail_start, edit.new_frames) == (35_000, 0, 0, 5000)
    assert edit.context == (0, 10_000)
    assert (edit.lead_frames, edit.joint_frames, edit.alignment_frames) == (0, 100, 1000)
    assert edit.generated_frames == 5000 + 2000


def test_repaint_keeps_the_length_and_continues_what_is_before():
    edit = plan(EditKind.REPAINT, start=12_000, end=20_000)
    assert (edit.frames, edit.head_frames, edit.tail_start, edit.new_frames) == (30_000, 12_000, 20_000, 8000)
    assert edit.context == (2000, 12_000)
    assert edit.generated_frames == 40 + 8000 + 100


@pytest.mark.parametrize(
    ("start", "end", "context", "lead", "joint"),
    [
        (499, 2000, (2000, 12_000), 40, 100),
        (30, 2000, (2000, 12_000), 30, 100),
        (500, 2000, (0, 500), 40, 100),
        (0, 29_950, None, 0, 50),
        (0, 30_000, None, 0, 0),
        (29_000, 30_000, (19_000, 29_000), 40, 0),
    ],
)
def test_repaint_near_an_end_uses_what_there_is(start, end, context, lead, joint):
    edit = plan(EditKind.REPAINT, start=start, end=end)
    assert (edit.context, edit.lead_frames, edit.joint_frames) == (context, lead, joint)
    assert edit.frames == 30_000
    assert edit.alignment_frames == 0


def test_source_that_is_too_short_to_continue_is_extended_by_music_of_its_own():
    edit = plan(EditKind.EXTEND_RIGHT, source=499, added=1000)
    assert (edit.context, edit.lead_frames, edit.frames) == (None, 40, 1499)
    assert not edit.continues_head
