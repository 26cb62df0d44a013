"""The score of a piece: the notes that a model plays, for models that know them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from generation_service.models.base import FloatArray, GenerationParameters, Section


@dataclass(frozen=True, slots=True)
class ScoreNote:
    """A note as it sounds: with its swing and the timing of a human player. Frames are counted from the beginning."""

    start_frame: int
    end_frame: int
    """When it is released; after `start_frame`."""
    pitch: int
    """MIDI pitch, 0 … 127; for a drum its place in General MIDI's drum map."""
    velocity: int
    """1 … 127"""


@dataclass(slots=True)
class ScoreTrack:
    """The notes of one instrument."""

    name: str
    stem: str
    """The stem that contains it."""
    program: int | None
    """General MIDI's number of the instrument, 0 … 127; None for drums."""
    pan: float = 0.0
    """-1 left … 1 right."""
    notes: list[ScoreNote] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Score:
    """The notes of a piece in a constant tempo, and what notation needs besides."""

    sample_rate_hz: int
    total_frames: int
    bpm: float
    """Quarter notes per minute."""
    beats_per_bar: int
    tonic: str
    """As it is written, such as "F#" or "Bb"."""
    is_minor: bool
    sections: Sequence[Section]
    tracks: Sequence[ScoreTrack]


class StemRendering(Protocol):
    """The stems of a piece, which add up to its samples."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the stems that are not silent."""
        ...

    def blocks(self) -> Iterator[FloatArray]:
        """Yields consecutive blocks of all stems, float32 [stems, n, channels]. Their float32 sum over the stems, in
        any order, is exactly what the model generated."""
        ...


@runtime_checkable
class KnowsItsNotes(Protocol):
    """A model that composes: it can write down what it played, and render its parts one by one.

    Both depend on the parameters alone, and may be called from any thread.
    """

    def write_score(self, parameters: GenerationParameters) -> Score:
        """Returns the notes of the piece that it generates for these parameters."""
        ...

    def render_stems(self, parameters: GenerationParameters) -> StemRendering:
        """Returns the stems of the piece that it generates for these parameters. They are rendered as they are read."""
        ...
