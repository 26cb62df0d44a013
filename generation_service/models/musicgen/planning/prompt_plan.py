"""Which texts guide which frames of a piece, and how one prompt passes to the next.

    prompts   |------- A -------|----------- B -----------| A
    spans     |----- A -----| A→B |--------- B --------|B→A| A

In a span A→B both texts guide the music, and their weights change linearly. Each span begins a window of its own, which
reads the end of the music so far: so the new prompt continues what the old one began, and the conditions of a window
change in nothing but their weights. Everything is counted in frames of codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from generation_service.models.base import GenerationParameters

MIN_STEADY_SHARE = 2
"""At least one frame in so many of a section has its prompt alone."""


@dataclass(frozen=True, slots=True)
class GuidingText:
    """A text, and its weight in the first frame of a span and at its end."""

    text: str
    first_weight: float = 1.0
    last_weight: float = 1.0


@dataclass(frozen=True, slots=True)
class PromptSpan:
    """Frames that the same texts guide, from `start` to the start of the next span."""

    start: int
    texts: tuple[GuidingText, ...]


@dataclass(frozen=True, slots=True)
class _Section:
    start: int
    end: int
    text: str


def plan_prompts(
    parameters: GenerationParameters, *, first: int, end: int, offset: float, hop: int, max_half_fade: int
) -> tuple[PromptSpan, ...]:
    """The spans of the new frames of a piece, from `first` to `end`.

    offset: the frame at which the output begins, which is `first` unless a part of the clip before it is kept. hop:
    frames of audio in a frame of codes. A fade reaches at most `max_half_fade` to both sides of a boundary;
    half of that is too short for a gap between sections to have the prompt of the piece.
    """
    if not parameters.sections:
        return (PromptSpan(first, _weigh(parameters)),)
    sections = _fill_gaps(parameters, first, end, offset=offset, hop=hop, min_gap=max_half_fade // 2)
    spans = [PromptSpan(first, (GuidingText(sections[0].text),))]
    for before, after in pairwise(sections):
        share = min(before.end - before.start, after.end - after.start) // (2 * MIN_STEADY_SHARE)
        half = min(share, max_half_fade)
        if half:
            fade = (GuidingText(before.text, 1.0, 0.0), GuidingText(after.text, 0.0, 1.0))
            spans.append(PromptSpan(after.start - half, fade))
        spans.append(PromptSpan(after.start + half, (GuidingText(after.text),)))
    return tuple(spans)


def _weigh(parameters: GenerationParameters) -> tuple[GuidingText, ...]:
    texts = [(parameters.prompt, parameters.prompt_weight)]
    texts += [(further.prompt, further.weight) for further in parameters.further_prompts]
    total = sum(weight for _, weight in texts)
    return tuple(GuidingText(text, weight / total, weight / total) for text, weight in texts)


def _fill_gaps(
    parameters: GenerationParameters, first: int, end: int, *, offset: float, hop: int, min_gap: int
) -> Sequence[_Section]:
    """Sections from `first` to `end` without gaps, none of them empty, and no two in a row with the same text."""
    sections: list[_Section] = []

    def place(audio_frame: int) -> int:
        return max(first, min(end, round(offset + audio_frame / hop)))

    def add(start: int, stop: int, text: str) -> None:
        if start >= stop:
            return
        if sections and sections[-1].text == text:
            sections[-1] = replace(sections[-1], end=stop)
        else:
            sections.append(_Section(start, stop, text))

    reached = first
    for section in parameters.sections:
        start, stop = place(section.start_frame), place(section.end_frame)
        if start - reached < min_gap:
            start = reached
        add(reached, start, parameters.prompt)
        if end - stop < min_gap:
            stop = end
        add(start, stop, section.prompt)
        reached = stop
    add(reached, end, parameters.prompt)
    return sections
