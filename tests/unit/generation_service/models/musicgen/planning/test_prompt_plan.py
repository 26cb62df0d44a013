"""Which texts guide which frames of codes. A frame of codes has 10 frames of audio."""

from __future__ import annotations

from typing import Any

import pytest

from generation_service.models.base import GenerationParameters, PromptSection, WeightedPrompt
from generation_service.models.musicgen.planning.prompt_plan import GuidingText, PromptSpan, plan_prompts

HOP = 10


def section(start: int, end: int, prompt: str) -> PromptSection:
    return PromptSection(start * HOP, end * HOP, prompt)


def plan(*, first: int = 0, end: int = 1000, offset: float | None = None, fade: int = 50, **fields: Any) -> list[Any]:
    parameters = GenerationParameters("a", (end - first) * HOP, 1, **fields)
    start = first if offset is None else offset
    spans = plan_prompts(parameters, first=first, end=end, offset=start, hop=HOP, max_half_fade=fade)
    return [(span.start, *(each.text for each in span.texts)) for span in spans]


def test_one_prompt_guides_all_with_all_its_weight() -> None:
    parameters = GenerationParameters("a", 100, 1, prompt_weight=4.0)
    spans = plan_prompts(parameters, first=7, end=17, offset=7, hop=HOP, max_half_fade=50)
    assert spans == (PromptSpan(7, (GuidingText("a", 1.0, 1.0),)),)


def test_weights_of_several_prompts_are_relative() -> None:
    further = (WeightedPrompt("b", 1.0), WeightedPrompt("c", 0.5))
    parameters = GenerationParameters("a", 100, 1, prompt_weight=0.5, further_prompts=further)
    (span,) = plan_prompts(parameters, first=0, end=10, offset=0, hop=HOP, max_half_fade=50)
    assert span.texts == (GuidingText("a", 0.25, 0.25), GuidingText("b", 0.5, 0.5), GuidingText("c", 0.25, 0.25))


def test_weights_pass_from_one_prompt_to_the_next_around_the_boundary() -> None:
    parameters = GenerationParameters("a", 10_000, 1, sections=(section(0, 400, "b"), section(400, 1000, "c")))
    assert plan_prompts(parameters, first=0, end=1000, offset=0, hop=HOP, max_half_fade=50) == (
        PromptSpan(0, (GuidingText("b"),)),
        PromptSpan(350, (GuidingText("b", 1.0, 0.0), GuidingText("c", 0.0, 1.0))),
        PromptSpan(450, (GuidingText("c"),)),
    )


@pytest.mark.parametrize(
    ("sections", "spans"),
    [
        # The prompt applies before, between and after sections.
        ([(400, 600, "b")], [(0, "a"), (350, "a", "b"), (450, "b"), (550, "b", "a"), (650, "a")]),
        # No boundary between the same texts, and none that comes too late or too early.
        ([(0, 300, "b"), (300, 1000, "b")], [(0, "b")]),
        ([(500, 700, "a")], [(0, "a")]),
        ([(1000, 1200, "b")], [(0, "a")]),
        ([(0, 0, "b")], [(0, "a")]),
        # At least half of a section has its prompt alone.
        ([(0, 80, "b")], [(0, "b"), (60, "b", "a"), (100, "a")]),
        ([(500, 504, "b")], [(0, "a"), (499, "a", "b"), (501, "b"), (503, "b", "a"), (505, "a")]),
        # Gaps that are too short for a prompt of their own.
        ([(24, 300, "b"), (324, 976, "c")], [(0, "b"), (250, "b", "c"), (350, "c")]),
        ([(0, 300, "b"), (325, 975, "a")], [(0, "b"), (250, "b", "a"), (350, "a")]),
        # Too short for any fade.
        ([(500, 503, "b")], [(0, "a"), (500, "b"), (503, "a")]),
    ],
)
def test_sections_become_spans(sections: list[tuple[int, int, str]], spans: list[Any]) -> None:
    assert plan(sections=tuple(section(*each) for each in sections)) == spans


def test_sections_are_counted_in_the_output_and_not_in_the_clip() -> None:
    sections = (section(0, 400, "b"), section(400, 900, "c"))
    assert plan(first=100, sections=sections) == [(100, "b"), (450, "b", "c"), (550, "c")]
    assert plan(first=100, offset=97.5, sections=sections) == [
        (100, "b"),
        (448, "b", "c"),
        (548, "c"),
    ], "a part of the clip is kept, so that the output begins before the new frames"
