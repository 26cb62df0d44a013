"""Tempo and key of generations, by which lists are filtered: columns of their own, kept as the metadata says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, event, text

from dgx_music.errors import InvalidArgument
from service_runtime.validation import check_range
from storage_service.db.models import Generation

MAX_BPM = 1000.0
"""Beats per minute; what is above is no tempo."""

_TONICS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
"""The one spelling under which each pitch class is stored, from C on."""
_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "♯": 1, "b": -1, "♭": -1}
_KEY = re.compile(r"([A-G])([#♯b♭]?) (major|minor)")

_IN_INDEX = text("(bpm IS NOT NULL OR music_key IS NOT NULL)")
"""The condition of the index, verbatim: it is used only by queries that contain it."""


def canonical_key(key: str) -> str | None:
    """Returns the key in the spelling under which it is stored, e.g. "Eb minor" for "D# minor"; None if it is none."""
    found = _KEY.fullmatch(" ".join(key.split()))
    if found is None:
        return None
    letter, accidental, mode = found.groups()
    return f"{_TONICS[(_SEMITONES[letter] + _ACCIDENTALS[accidental]) % 12]} {mode}"


def musical_columns(metadata: Mapping[str, Any]) -> dict[str, float | str | None]:
    """Returns the columns `bpm` and `music_key` of a row with this metadata: as the music was made, or else as it was
    measured; None for what is unknown. Metadata is the user's, too, and may hold anything under these names."""
    tempi = (_read_tempo(metadata.get(name)) for name in ("bpm", "measured_bpm"))
    keys = (_read_key(metadata.get(name)) for name in ("key", "measured_key"))
    return {
        "bpm": next((bpm for bpm in tempi if bpm is not None), None),
        "music_key": next((key for key in keys if key is not None), None),
    }


def _read_tempo(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value <= MAX_BPM else None  # Which NaN is not, either.


def _read_key(value: object) -> str | None:
    return canonical_key(value) if isinstance(value, str) else None


def select_musical(min_bpm: float, max_bpm: float, key: str) -> list[ColumnElement[bool]]:
    """Returns the conditions of a tempo from `min_bpm` to `max_bpm` in beats per minute, and of a key; 0 and an empty
    key allow any. Raises InvalidArgument for what is no tempo or no key."""
    check_range("min_bpm", min_bpm, 0.0, MAX_BPM)
    check_range("max_bpm", max_bpm, 0.0, MAX_BPM)
    if max_bpm and max_bpm < min_bpm:
        raise InvalidArgument("max_bpm", f"must be at least min_bpm, {min_bpm:g}, not {max_bpm:g}")
    conditions: list[ColumnElement[bool]] = []
    if min_bpm:
        conditions.append(Generation.bpm >= min_bpm)
    if max_bpm:
        conditions.append(Generation.bpm <= max_bpm)
    if key:
        canonical = canonical_key(key)
        if canonical is None:
            raise InvalidArgument("key", f'must be a key such as "A minor" or "Bb major", not {key[:40]!r}')
        conditions.append(Generation.music_key == canonical)
    # A predicate of text is a condition like the others, which SQLAlchemy can't know.
    return [*conditions, _IN_INDEX] if conditions else []  # type: ignore[list-item]


@event.listens_for(Generation.metadata_, "set")
def _follow_metadata(generation: Generation, metadata: Mapping[str, Any], *_: object) -> None:
    for name, value in musical_columns(metadata).items():
        setattr(generation, name, value)
