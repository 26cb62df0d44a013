"""How many frames of codes a request reads and generates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dgx_music.errors import InvalidArgument
from generation_service.models.base import FloatArray, GenerationParameters, PromptSection
from generation_service.models.musicgen.planning.request_plan import RequestPlan, plan_request

HOP = 10
WINDOW = 100


def plan(frames: int, clip_frames: int | None = None, **fields: Any) -> RequestPlan:
    clip: FloatArray | None = None
    if clip_frames is not None:
        clip = np.arange(clip_frames, dtype=np.float32)[:, None]
    parameters = GenerationParameters("a", frames, 1, prompt_audio=clip, **fields)
    return plan_request(parameters, hop=HOP, window=WINDOW, sample_rate_hz=200)


@pytest.mark.parametrize(
    ("frames", "clip_frames", "expected"),
    [
        (95, None, (0, 10)),
        (1, None, (0, 1)),
        (95, 39, (3, 13)),  # Whole frames of the clip.
        (300, 5000, (70, 100)),  # As many as leave room for the new ones.
        (5000, 5000, (40, 540)),  # As many as one window passes to the next.
    ],
)
def test_clip_fits_into_the_window_with_what_is_new(
    frames: int, clip_frames: int | None, expected: tuple[int, int]
) -> None:
    planned = plan(frames, clip_frames)
    assert (planned.prompt_frames, planned.total_frames) == expected
    if clip_frames is not None:
        assert planned.clip is not None
        assert len(planned.clip) == planned.prompt_frames * HOP
        assert planned.clip[-1, 0] == clip_frames - 1, "the end of the clip"


def test_kept_end_of_the_clip_needs_no_new_codes() -> None:
    planned = plan(95, 200, kept_prompt_frames=35)
    assert planned.total_frames == 20 + 6
    assert [planned.output_frame(frame) for frame in (0, 16, 20)] == [35 - 200, 35 - 40, 35]


def test_sections_are_counted_in_the_output_with_what_is_kept() -> None:
    sections = (PromptSection(0, 200, "b"), PromptSection(200, 400, "c"))
    spans = plan(400, 200, kept_prompt_frames=100, sections=sections).spans
    boundary = 20 + (200 - 100) // HOP
    assert (spans[0].start, spans[1].start + spans[2].start) == (20, 2 * boundary)


def test_each_span_has_a_window_of_its_own() -> None:
    assert plan(600).window_starts == (0,)
    assert plan(600, sections=(PromptSection(0, 300, "b"),)).window_starts == (0, 0, 0)


def test_clip_without_a_whole_frame_is_rejected() -> None:
    with pytest.raises(InvalidArgument, match=r"it has 9 frames of audio; at least 10") as error:
        plan(10, 9)
    assert error.value.field == "continuation.source_id"


@pytest.mark.parametrize(("frames", "half"), [(4000, 20), (200, 2)])
def test_fade_takes_a_second_to_both_sides_or_less(frames: int, half: int) -> None:
    """At 20 frames of codes per second."""
    middle = frames // 2
    spans = plan(frames, sections=(PromptSection(0, middle, "b"),)).spans
    assert [span.start for span in spans] == [0, middle // HOP - half, middle // HOP + half]


def test_fade_has_room_in_one_window() -> None:
    parameters = GenerationParameters("a", 4000, 1, sections=(PromptSection(0, 2000, "b"),))
    spans = plan_request(parameters, hop=HOP, window=20, sample_rate_hz=200).spans
    assert spans[2].start - spans[1].start == 12, "a window of 20 frames has 12 new ones"
