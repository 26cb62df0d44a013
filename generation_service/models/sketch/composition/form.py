"""The form of a piece: the section of each bar, and the end of the piece."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

BEATS_PER_BAR: Final = 4
STEPS_PER_BAR: Final = 16

# The sections that a long piece repeats between intro and outro: (name, bars).
_CYCLE: Final = (("A", 8), ("B", 8), ("break", 4), ("B", 8))
_ENERGY: Final = {"intro": 0.25, "A": 0.6, "B": 0.9, "break": 0.3, "outro": 0.35}


@dataclass(frozen=True, slots=True)
class Section:
    """Consecutive bars of one character. Sections with the same name share their musical material."""

    name: str
    first_bar: int
    bars: int
    energy: float
    """0 … 1; a part plays if its own threshold is not above it."""


@dataclass(frozen=True, slots=True)
class Form:
    """The sections in order, and the frame of the closing chord, which is None if the piece is too short for one."""

    sections: tuple[Section, ...]
    bar_frames: float
    end_frame: int | None
    fade_start: int
    total_frames: int
    _starts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_starts", tuple(section.first_bar for section in self.sections))

    @property
    def bars(self) -> int:
        last = self.sections[-1]
        return last.first_bar + last.bars

    def section_of(self, bar: int) -> Section:
        return self.sections[bisect_right(self._starts, bar) - 1]

    def frame(self, bar: int, step: float = 0.0) -> int:
        """The frame of a sixteenth in a bar, rounded from the exact time, so that the tempo does not drift."""
        return round((bar + step / STEPS_PER_BAR) * self.bar_frames)


def build_form(total_frames: int, bpm: float, rate_hz: int, ring_seconds: float, drive: float) -> Form:
    """Lays out a piece of exactly `total_frames`.

    The piece ends with a chord on the last beat 1 or 3 that leaves `ring_seconds` for it to ring. If there would be
    less than two bars before that chord, the piece fades out instead.
    """
    bar_frames = BEATS_PER_BAR * 60.0 / bpm * rate_hz
    ring = min(ring_seconds, 0.25 * total_frames / rate_hz)
    halves = int((total_frames - ring * rate_hz) / (bar_frames / 2))
    spare = total_frames / rate_hz - (halves - 1) * bar_frames / 2 / rate_hz
    if halves % 2 and spare < ring + 1.6:
        halves -= 1  # Ending on a full bar is better if it costs little time.
    if halves < 4:
        bars = max(1, -(-total_frames // int(bar_frames)))
        fade = min(int(1.2 * rate_hz), int(0.3 * total_frames))
        sections = (Section("A", 0, bars, 0.75 + 0.1 * drive),)
        return Form(sections, bar_frames, None, total_frames - fade, total_frames)
    end_frame = round(halves * bar_frames / 2)
    bars = -(-halves // 2)
    fade_start = end_frame + int(0.3 * (total_frames - end_frame))
    return Form(_sections(bars, drive), bar_frames, end_frame, fade_start, total_frames)


def build_loop_form(bars: int, frames: int) -> Form:
    """One section of `bars` bars in exactly `frames` frames, without an ending: its last bar leads to its first."""
    return Form((Section("loop", 0, bars, _ENERGY["B"]),), frames / bars, None, frames, frames)


def _sections(bars: int, drive: float) -> tuple[Section, ...]:
    if bars <= 3:
        plan = [("B", bars)]
    elif bars <= 6:
        plan = [("intro", 1), ("B", bars - 1)]
    elif bars <= 11:
        half = max(2, (bars - 2) // 4 * 2)
        plan = [("intro", 2), ("A", half), ("B", bars - 2 - half)]
    elif bars <= 19:
        plan = [("intro", 2), ("A", 4), ("break", 2), ("B", bars - 8)]
        if bars >= 15:
            plan = [("intro", 4), ("A", 4), ("break", 2), ("B", bars - 10)]
    else:
        plan = _long_form(bars)
    sections = []
    first = 0
    for number, (name, length) in enumerate(plan):
        # A section is a little fuller each time it returns.
        growth = 0.05 * sum(name == earlier for earlier, _ in plan[:number])
        energy = min(1.0, max(0.1, _ENERGY[name] + growth + 0.1 * drive))
        sections.append(Section(name, first, length, energy))
        first += length
    return tuple(sections)


def _long_form(bars: int) -> list[tuple[str, int]]:
    edge = 4 if bars >= 32 else 2  # Bars of the intro, and of the outro.
    plan = [("intro", edge)]
    left = bars - 2 * edge
    turn = 0
    while left > 0:
        name, length = _CYCLE[turn % len(_CYCLE)]
        turn += 1
        if left - length < 4:  # Avoids a fragment of a section at the end, and a break before the outro.
            plan.append((name if name != "break" else "B", left))
            break
        plan.append((name, length))
        left -= length
    return [*plan, ("outro", edge)]
