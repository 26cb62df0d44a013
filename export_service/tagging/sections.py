"""The sections of the music, such as an intro or a chorus, which files store as markers and loop points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A section of the music, in frames at the file's sample rate."""

    name: str
    start_frame: int
    end_frame: int
    """The frame after the last one."""


LOOP_NAME = "loop"
"""The name of the only section of music whose end leads into its start."""


def is_loop(sections: Sequence[Section]) -> bool:
    """Whether the whole file is a loop."""
    return len(sections) == 1 and sections[0].name == LOOP_NAME and sections[0].start_frame == 0


def scale_sections(
    sections: Iterable[Section], from_rate_hz: int, to_rate_hz: int, max_frames: int
) -> tuple[Section, ...]:
    """Returns the sections at another sample rate, clipped to a file of `max_frames`. Sections outside of it, and
    empty ones, are left out.
    """
    scaled = (
        Section(
            section.name,
            max(round(section.start_frame * to_rate_hz / from_rate_hz), 0),
            min(round(section.end_frame * to_rate_hz / from_rate_hz), max_frames),
        )
        for section in sections
    )
    return tuple(section for section in scaled if section.start_frame < section.end_frame)
