"""How long a generation is, and whether its model can generate as much."""

from __future__ import annotations

from typing import Any

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.generation.v1.generation_pb2 import Model
from dgx_music.storage.v1.conditioning_pb2 import (
    EDIT_KIND_EXTEND_LEFT,
    EDIT_KIND_EXTEND_RIGHT,
    EDIT_KIND_REPAINT,
    Edit,
    Loop,
)
from dgx_music.storage.v1.storage_pb2 import Continuation, CreateGenerationRequest
from gateway.rpc.length_completion import complete_length

MAGNET = Model(name="magnet", max_duration_seconds=10, max_continuation_seconds=9)
MUSICGEN = Model(name="musicgen", max_duration_seconds=600, max_continuation_seconds=600)
ID = "1b4e28ba-2fa1-41d2-883f-0016d3cca427"
SOURCE_SECONDS = 20.0


def complete(model: Model, **fields: Any) -> float:
    request = CreateGenerationRequest(prompt="x", **fields)
    complete_length(request, model, SOURCE_SECONDS)
    return request.duration_seconds


def edit(kind: int, **fields: float) -> Edit:
    return Edit(source_id=ID, kind=kind, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("model", "seconds"), [(MUSICGEN, 16), (MAGNET, 10)])
def test_without_a_duration_it_is_16_s_or_what_the_model_can(model: Model, seconds: float) -> None:
    assert complete(model) == seconds
    assert complete(model, duration_seconds=3) == 3


def test_continuation_leaves_room_for_what_is_continued() -> None:
    continuation = Continuation(source_id=ID)
    assert complete(MAGNET, continuation=continuation) == 9
    with pytest.raises(InvalidArgument, match=r"duration_seconds: must be at most 9 s .* after what it continues"):
        complete(MAGNET, continuation=continuation, duration_seconds=9.1)


@pytest.mark.parametrize(
    ("fits", "too_long", "problem"),
    [
        (
            edit(EDIT_KIND_EXTEND_RIGHT, added_seconds=8.86),
            edit(EDIT_KIND_EXTEND_RIGHT, added_seconds=8.87),
            r"edit.added_seconds: .* the joints take 0.14: use at most 8.86 s",
        ),
        (
            edit(EDIT_KIND_EXTEND_LEFT, added_seconds=7),
            edit(EDIT_KIND_EXTEND_LEFT, added_seconds=7.1),
            r"edit.added_seconds: .* the joints take 2: use at most 7 s",
        ),
        (
            edit(EDIT_KIND_REPAINT, start_seconds=2, end_seconds=10.86),
            edit(EDIT_KIND_REPAINT, start_seconds=2, end_seconds=10.9),
            r"edit.end_seconds: .* use at most 8.86 s",
        ),
    ],
)
def test_edit_leaves_room_for_its_joints(fits: Edit, too_long: Edit, problem: str) -> None:
    assert complete(MAGNET, edit=fits) == SOURCE_SECONDS + fits.added_seconds
    with pytest.raises(InvalidArgument, match=problem):
        complete(MAGNET, edit=too_long)


def test_model_that_can_not_make_the_joints_is_refused() -> None:
    short = Model(name="short", max_duration_seconds=1, max_continuation_seconds=0.9)
    with pytest.raises(InvalidArgument, match="use another model"):
        complete(short, edit=edit(EDIT_KIND_EXTEND_LEFT, added_seconds=0.5))


def test_loop_leaves_room_for_the_bar_before_it() -> None:
    assert complete(MAGNET, loop=Loop(bars=3, bpm=120)) == 6
    with pytest.raises(InvalidArgument, match=r"loop.bars: needs 10.01 s of music .* at most 10 s"):
        complete(MAGNET, loop=Loop(bars=4, bpm=120))


@pytest.mark.parametrize(
    ("field", "loop"),
    [
        ("loop.bars", Loop(bpm=96)),
        ("loop.bars", Loop(bars=65, bpm=96)),
        ("loop.bpm", Loop(bars=2)),
        ("loop.bpm", Loop(bars=2, bpm=-96)),
        ("loop.beats_per_bar", Loop(bars=2, bpm=96, beats_per_bar=17)),
    ],
)
def test_loop_is_checked_before_its_length_is_computed(field: str, loop: Loop) -> None:
    with pytest.raises(InvalidArgument) as error:
        complete(MUSICGEN, loop=loop)
    assert error.value.field == field
