"""The form of a piece: the section of each bar, and the end of the piece."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

BEATS_PER_BAR: Final = 4
STEPS_PER_BAR: Final = 16

Layout = list[tuple[str, int]]
"""(kind of section, bars)"""

_ENERGY: Final = {
    "intro": 0.3, "verse": 0.56, "build": 0.62, "chorus": 0.9, "break": 0.34, "solo": 0.8, "outro": 0.42,
}  # fmt: skip
_GROWTH: Final = 0.04
"""A section is a little fuller each time it returns."""

# What a long piece repeats between intro and outro.
_CYCLES: Final[dict[str, Layout]] = {
    "song": [("verse", 8), ("build", 2), ("chorus", 8), ("verse", 8), ("chorus", 8), ("break", 4), ("chorus", 8)],
    "solo": [("verse", 8), ("chorus", 8), ("verse", 8), ("chorus", 8), ("break", 4), ("solo", 8), ("chorus", 8)],
    "beat": [("verse", 8), ("chorus", 8), ("verse", 8), ("break", 4), ("chorus", 8)],
    "club": [("verse", 8), ("build", 4), ("chorus", 8), ("break", 8), ("build", 4), ("chorus", 16)],
    "head": [("verse", 8), ("chorus", 8), ("solo", 8), ("solo", 8), ("break", 4), ("chorus", 8)],
    "arc": [("verse", 8), ("chorus", 8), ("break", 4), ("verse", 8), ("chorus", 8)],
}
_NAMES: Final[dict[str, dict[str, str]]] = {
    "song": {"build": "pre-chorus", "break": "bridge"},
    "beat": {"chorus": "hook"},
    "club": {"verse": "groove", "chorus": "drop", "break": "breakdown"},
    "head": {"verse": "head", "chorus": "head", "break": "vamp"},
    "arc": {"verse": "theme", "build": "rise", "chorus": "climax", "break": "episode", "outro": "coda"},
}
_RISING: Final = frozenset({"club", "song"})
"""The forms with a build before the chorus."""


@dataclass(frozen=True, slots=True)
class Section:
    """Consecutive bars of one character. Sections of the same kind share their musical material."""

    name: str
    first_bar: int
    bars: int
    energy: float
    """0 … 1; a part plays if its own threshold is not above it."""
    kind: str = "chorus"
    """intro, verse, build, chorus, break, solo, outro"""
    turn: int = 0
    """How many sections of its kind came before."""

    @property
    def material(self) -> str:
        """Sections with the same material have the same chords and melody."""
        return {"chorus": "B", "solo": "B", "break": "C"}.get(self.kind, "A")


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

    def following(self, bar: int) -> Section | None:
        """The section that begins with the next bar, if one does."""
        section = self.section_of(min(bar + 1, self.bars - 1))
        return section if section.first_bar == bar + 1 else None

    def frame(self, bar: int, step: float = 0.0) -> int:
        """The frame of a sixteenth in a bar, rounded from the exact time, so that the tempo does not drift."""
        return round((bar + step / STEPS_PER_BAR) * self.bar_frames)


def build_form(
    total_frames: int, bpm: float, rate_hz: int, ring_seconds: float, drive: float,
    kind: str = "song", *, solo: bool = False,
) -> Form:  # fmt: skip
    """Lays out a piece of exactly `total_frames` in the form of its genre.

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
        sections = _sections([("chorus", bars)], kind, drive)
        return Form(sections, bar_frames, None, total_frames - fade, total_frames)
    end_frame = round(halves * bar_frames / 2)
    bars = -(-halves // 2)
    fade_start = end_frame + int(0.3 * (total_frames - end_frame))
    layout = _layout(bars, kind, "solo" if solo and kind == "song" else kind)
    return Form(_sections(layout, kind, drive), bar_frames, end_frame, fade_start, total_frames)


def build_loop_form(bars: int, frames: int) -> Form:
    """One section of `bars` bars in exactly `frames` frames, without an ending: its last bar leads to its first."""
    section = Section("loop", 0, bars, _ENERGY["chorus"])
    return Form((section,), frames / bars, None, frames, frames)


def _sections(layout: Layout, form: str, drive: float) -> tuple[Section, ...]:
    sections: list[Section] = []
    first = 0
    for number, (kind, length) in enumerate(layout):
        turn = sum(kind == earlier for earlier, _ in layout[:number])
        energy = min(1.0, max(0.1, _ENERGY[kind] + _GROWTH * turn + 0.1 * drive))
        name = _NAMES[form].get(kind, kind)
        sections.append(Section(name, first, length, energy, kind, turn))
        first += length
    return tuple(sections)


def _layout(bars: int, form: str, cycle: str) -> Layout:
    if bars <= 3:
        return [("chorus", bars)]
    if bars <= 6:
        return [("intro", 1), ("chorus", bars - 1)]
    if bars >= 20:
        return _long_layout(bars, _CYCLES[cycle])
    intro = 2 if bars % 2 == 0 else 1
    left = bars - intro
    if bars <= 11:
        first = 4 if left >= 8 and form != "club" else 2
        return [("intro", intro), ("build" if form == "club" else "verse", first), ("chorus", left - first)]
    build = [("build", 2)] if form in _RISING else []
    left -= 4 + 2 * len(build)
    if left >= 10:
        return [("intro", intro), ("verse", 4), *build, ("chorus", 4), ("break", 2), ("chorus", left - 6)]
    return [("intro", intro), ("verse", 4), *build, ("chorus", left)]


def _long_layout(bars: int, cycle: Layout) -> Layout:
    edge = 4 if bars >= 32 else 2  # Bars of the intro, and of the outro.
    layout: Layout = [("intro", edge)]
    left = bars - 2 * edge
    turn = 0
    while left > 0:
        kind, length = cycle[turn % len(cycle)]
        turn += 1
        if left - length < 4:  # Avoids a fragment of a section at the end, and a break before the outro.
            layout.append((kind if kind not in ("break", "build") else "chorus", left))
            break
        layout.append((kind, length))
        left -= length
    return [*layout, ("outro", edge)]
