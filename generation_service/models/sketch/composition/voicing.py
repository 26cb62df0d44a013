"""Voice leading: how the tones of each chord of a loop are laid out, so that the voices move as little as possible."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

from generation_service.models.sketch.composition.music_theory import Chord

Voicing = tuple[int, ...]

_RANGE = 15
"""The lowest tone of a voicing is at most this many semitones above the bottom of the part's range."""
_MUDDY_BELOW = 52
"""Below this pitch (E3), tones that are nearer than a minor third sound muddy."""
_MUD = 6.0
_CENTRE_PULL = 0.25
_LONE_VOICE = 4.0
"""The cost of a voice that appears or ends."""


@lru_cache(maxsize=256)
def lead_voices(chords: tuple[Chord, ...], low: int, kind: str) -> tuple[Voicing, ...]:
    """One voicing per chord, by dynamic programming over all inversions: the least motion from chord to chord, and from
    the last back to the first, because loops repeat.

    `kind` is close, open (drop 2), rootless or triad.
    """
    options = [_options(chord, low, kind) for chord in chords]
    best: tuple[float, tuple[Voicing, ...]] | None = None
    for first in options[0]:
        costs: dict[Voicing, tuple[float, tuple[Voicing, ...]]] = {first: (_shape_cost(first, low), (first,))}
        for choices in options[1:]:
            costs = {
                choice: min(
                    (cost + _motion(path[-1], choice) + _shape_cost(choice, low), (*path, choice))
                    for cost, path in costs.values()
                )
                for choice in choices
            }
        found = min((cost + _motion(path[-1], first), path) for cost, path in costs.values())
        best = found if best is None or found < best else best
    assert best is not None
    return best[1]


def power_chord(chord: Chord, low: int) -> Voicing:
    """Root, fifth and octave."""
    root = chord.bass(low)
    return root, root + 7, root + 12


def _options(chord: Chord, low: int, kind: str) -> list[Voicing]:
    intervals = chord.intervals
    if kind == "rootless" and len(intervals) > 3:
        intervals = intervals[1:]
    if kind == "triad":
        intervals = intervals[:3]
    classes = [(chord.root + interval) % 12 for interval in dict.fromkeys(i % 12 for i in intervals)]
    close = []
    for start in range(low, low + _RANGE):
        if start % 12 in classes:
            close.append(tuple(sorted(start + (pitch_class - start) % 12 for pitch_class in classes)))
    if kind != "open":
        return close
    dropped = []
    for tones in close:
        # Drop 2: the second highest voice an octave lower, as guitarists and string sections do.
        opened = [*tones[:-2], tones[-2] - 12, tones[-1]] if len(tones) > 2 else list(tones)
        if min(opened) >= low - 5:
            dropped.append(tuple(sorted(opened)))
    return dropped or close


def _shape_cost(voicing: Voicing, low: int) -> float:
    mud = sum(_MUD for under, over in pairwise(voicing) if under < _MUDDY_BELOW and over - under < 3)
    middle = sum(voicing) / len(voicing)
    return mud + _CENTRE_PULL * abs(middle - (low + 8.0))


def _motion(before: Voicing, after: Voicing) -> float:
    """The semitones that the voices move in all, each to its nearest tone in order from the top."""
    pairs = min(len(before), len(after))
    moved = sum(abs(a - b) for a, b in zip(before[-pairs:], after[-pairs:], strict=True))
    return moved + _LONE_VOICE * abs(len(before) - len(after))
