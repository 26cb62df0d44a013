"""The form of a piece: which section each bar belongs to, and where it ends."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

BEATS_PER_BAR: Final = 4
STEPS_PER_BAR: Final = 16

# One round of a long piece after its intro: (name, bars).
_ROUND: Final = (("A", 8), ("B", 8), ("break", 4), ("B", 8))
_ENERGY: Final = {"intro": 0.25, "A": 0.6, "B": 0.9, "break": 0.3, "outro": 0.35}


@dataclass(frozen=True, slots=True)
class Section:
    """A run of bars of one character. Two sections of one name share their material."""

    name: str
    first_bar: int
    bars: int
    energy: float
    """0 … 1: how many of the parts play."""


@dataclass(frozen=True, slots=True)
class Form:
    """Sections in order, and the frame of the closing chord (None: too short for one)."""

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
        """Frame of a sixteenth in a bar. Rounded from the exact time, so the tempo never drifts."""
        return round((bar + step / STEPS_PER_BAR) * self.bar_frames)


def build_form(total_frames: int, bpm: float, rate_hz: int, ring_seconds: float, drive: float) -> Form:
    """Lay out a piece of exactly ``total_frames``.

    It closes on a chord struck on the last beat 1 or 3 that leaves ``ring_seconds`` to ring. A piece
    of less than two bars before that chord just fades.
    """
    bar_frames = BEATS_PER_BAR * 60.0 / bpm * rate_hz
    ring = min(ring_seconds, 0.25 * total_frames / rate_hz)
    halves = int((total_frames - ring * rate_hz) / (bar_frames / 2))
    spare = total_frames / rate_hz - (halves - 1) * bar_frames / 2 / rate_hz
    if halves % 2 and spare < ring + 1.6:
        halves -= 1  # A full bar is the better end where it costs little.
    if halves < 4:
        bars = max(1, -(-total_frames // int(bar_frames)))
        fade = min(int(1.2 * rate_hz), int(0.3 * total_frames))
        sections = (Section("A", 0, bars, 0.75 + 0.1 * drive),)
        return Form(sections, bar_frames, None, total_frames - fade, total_frames)
    end_frame = round(halves * bar_frames / 2)
    bars = -(-halves // 2)
    fade_start = end_frame + int(0.3 * (total_frames - end_frame))
    return Form(_sections(bars, drive), bar_frames, end_frame, fade_start, total_frames)


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
        # Each return of a section is a little fuller than the time before.
        growth = 0.05 * sum(name == earlier for earlier, _ in plan[:number])
        energy = min(1.0, max(0.1, _ENERGY[name] + growth + 0.1 * drive))
        sections.append(Section(name, first, length, energy))
        first += length
    return tuple(sections)


def _long_form(bars: int) -> list[tuple[str, int]]:
    frame = 4 if bars >= 32 else 2  # Bars of intro and of outro.
    plan = [("intro", frame)]
    left = bars - 2 * frame
    turn = 0
    while left > 0:
        name, length = _ROUND[turn % len(_ROUND)]
        turn += 1
        if left - length < 4:  # No scrap of a section at the end, and no break before the outro.
            plan.append((name if name != "break" else "B", left))
            break
        plan.append((name, length))
        left -= length
    return [*plan, ("outro", frame)]
