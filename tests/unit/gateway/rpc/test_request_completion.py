"""What a request's model and sources determine, without their services."""

from __future__ import annotations

from typing import Any

import pytest

from dgx_music.errors import InvalidArgument
from dgx_music.generation.v1.generation_pb2 import Model
from dgx_music.storage.v1.conditioning_pb2 import EDIT_KIND_EXTEND_LEFT, EDIT_KIND_REPAINT, Edit, Loop
from dgx_music.storage.v1.storage_pb2 import CreateGenerationRequest
from gateway.rpc.request_completion import EDIT_OVERLAP_SECONDS, check_generated_length, complete_loop

MODEL = Model(name="tiny", max_duration_seconds=30.0)
MOST = 30.0 - EDIT_OVERLAP_SECONDS


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"duration_seconds": 30.0}, "duration_seconds"),
        ({"duration_seconds": 3000.0, "edit": Edit(kind=EDIT_KIND_EXTEND_LEFT, added_seconds=MOST)}, "added_seconds"),
        (
            {"duration_seconds": 3000.0, "edit": Edit(kind=EDIT_KIND_REPAINT, start_seconds=9, end_seconds=9 + MOST)},
            "end_seconds",
        ),
    ],
)
def test_only_what_is_new_has_to_be_within_what_the_model_generates(fields: dict[str, Any], field: str) -> None:
    request = CreateGenerationRequest(**fields)
    check_generated_length(request, MODEL)
    owner = request.edit if request.HasField("edit") else request
    setattr(owner, field, getattr(owner, field) + 0.5)
    with pytest.raises(InvalidArgument) as error:
        check_generated_length(request, MODEL)
    assert error.value.field == (f"edit.{field}" if request.HasField("edit") else field)


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
        complete_loop(CreateGenerationRequest(prompt="piano", loop=loop))
    assert error.value.field == field
