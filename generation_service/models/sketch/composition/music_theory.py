"""Keys, scales and chords as pitch arithmetic. Pitches are MIDI note numbers (60 = middle C)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}

# The spelling with fewer accidentals in its key signature, for keys drawn from the seed.
_MAJOR_NAMES = ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
_MINOR_NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B")

MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)
MINOR_SCALE = (0, 2, 3, 5, 7, 8, 10)

_NUMERALS = {"i": 0, "ii": 2, "iii": 4, "iv": 5, "v": 7, "vi": 9, "vii": 11}
_ROMAN = re.compile(r"(b|#)?([iv]+|[IV]+)(.*)")

# Semitones above the root: (for an upper-case numeral, for a lower-case numeral).
_QUALITIES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "": ((0, 4, 7), (0, 3, 7)),
    "5": ((0, 7), (0, 7)),
    "6": ((0, 4, 7, 9), (0, 3, 7, 9)),
    "7": ((0, 4, 7, 10), (0, 3, 7, 10)),
    "9": ((0, 4, 7, 10, 14), (0, 3, 7, 10, 14)),
    "13": ((0, 4, 10, 14, 21), (0, 3, 10, 14, 21)),
    "7b9": ((0, 4, 7, 10, 13), (0, 3, 7, 10, 13)),
    "maj7": ((0, 4, 7, 11), (0, 3, 7, 11)),
    "maj9": ((0, 4, 7, 11, 14), (0, 3, 7, 11, 14)),
    "add9": ((0, 4, 7, 14), (0, 3, 7, 14)),
    "sus2": ((0, 2, 7), (0, 2, 7)),
    "sus4": ((0, 5, 7), (0, 5, 7)),
    "m7b5": ((0, 3, 6, 10), (0, 3, 6, 10)),
    "dim7": ((0, 3, 6, 9), (0, 3, 6, 9)),
}


@dataclass(frozen=True, slots=True)
class Key:
    """A tonic and a mode. `spelling` is how the tonic is written, since "C#" and "Db" are the same pitch."""

    tonic: int
    minor: bool
    spelling: str

    @property
    def name(self) -> str:
        return f"{self.spelling} {'minor' if self.minor else 'major'}"

    @property
    def scale(self) -> tuple[int, ...]:
        return MINOR_SCALE if self.minor else MAJOR_SCALE

    def degree(self, step: int) -> int:
        """The semitones from the tonic to a scale step, which may be negative or beyond the octave."""
        octave, index = divmod(step, len(self.scale))
        return 12 * octave + self.scale[index]


@dataclass(frozen=True, slots=True)
class Chord:
    """`root` is a pitch class 0 … 11; `intervals` are semitones above it."""

    root: int
    intervals: tuple[int, ...]

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        return tuple((self.root + interval) % 12 for interval in self.intervals)

    def voicing(self, low: int, *, rootless: bool = False) -> tuple[int, ...]:
        """The tones of the chord within the octave above `low`, ascending.

        With a fixed octave, each chord takes the inversion nearest to its neighbours, as keyboard players do: common
        tones stay, and the others move by steps. `rootless` omits the root of chords with more than three tones.
        """
        classes = self.pitch_classes
        if rootless and len(classes) > 3:
            classes = classes[1:]
        return tuple(sorted({low + (pitch_class - low) % 12 for pitch_class in classes}))

    def bass(self, low: int) -> int:
        """The root, within the octave above `low`."""
        return low + (self.root - low) % 12


def pitch_class(spelling: str) -> int:
    """The pitch class of a name such as "C", "F#" or "Bb"."""
    shift = spelling.count("#") - spelling[1:].count("b")
    return (_LETTERS[spelling[0].upper()] + shift) % 12


def build_key(tonic: int, *, minor: bool, spelling: str | None = None) -> Key:
    names = _MINOR_NAMES if minor else _MAJOR_NAMES
    return Key(tonic, minor, spelling or names[tonic])


@lru_cache(maxsize=512)
def parse_chord(numeral: str, tonic: int) -> Chord:
    """A chord from a Roman numeral over the degrees of the *major* scale: "ii7", "bVImaj7", "V7b9".

    Raises ValueError if the numeral or the quality is unknown.
    """
    match = _ROMAN.fullmatch(numeral)
    if match is None or match[2].lower() not in _NUMERALS or match[3] not in _QUALITIES:
        raise ValueError(f"{numeral!r} is not a chord; expected a Roman numeral and a quality, for example bVImaj7")
    shift = {"b": -1, "#": 1}.get(match[1], 0)
    major, minor = _QUALITIES[match[3]]
    root = (tonic + _NUMERALS[match[2].lower()] + shift) % 12
    return Chord(root, major if match[2].isupper() else minor)


def frequency(pitch: float) -> float:
    """The frequency of a MIDI pitch in Hz, with A4 = 440 Hz."""
    return float(440.0 * 2.0 ** ((pitch - 69.0) / 12.0))
