"""Drum hits as one-shots: which recipe each drum has, how it is tuned, and how a soft hit differs from a hard one."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

import numpy as np

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.percussion import metals, skins, sticks_and_hands, transitions
from generation_service.models.sketch.synthesis.percussion.hit_synthesis import ONSET_FRAMES, Strike, seconds_of
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ

VARIANTS: Final = 3
"""How many takes there are of each hit: played in turns, they do not sound like a machine gun."""
LAYERS: Final = 4
"""Degrees of hardness."""

_VARIANT_PITCH: Final = (1.0, 1.006, 0.995)
_TONIC_PREFERENCE: Final = 2.0
"""How many semitones farther the tonic may be than the fifth: too many fifths sound like another key."""
_TAIL_FRAMES: Final = 800


@lru_cache(maxsize=256)
def render_drum(name: str, tonic: int, layer: int = LAYERS - 1, variant: int = 0) -> FloatArray:
    """One hit with a peak of 1.0: float32 [1 or 2, frames]. `layer` says how hard it is. Raises KeyError if the name is
    unknown.

    Drums with a pitch are tuned to the tonic (a pitch class), or to its fifth if that is much nearer: a drum that
    rings outside the key is dissonant.
    """
    strike = Strike((layer + 0.5) / LAYERS, variant)
    sound = np.atleast_2d(_RECIPES[name](strike)).astype(np.float32)
    if name in _HEAD_HZ:
        sound = _retuned(sound, _HEAD_HZ[name], tonic, _VARIANT_PITCH[variant % len(_VARIANT_PITCH)])
    if name not in _RISING:
        sound = _softened(sound, strike.hardness)
    sound[:, :ONSET_FRAMES] *= np.linspace(0.0, 1.0, ONSET_FRAMES, dtype=np.float32)
    tail = min(sound.shape[1] // 4, 160 if name in _RISING else _TAIL_FRAMES)
    sound[:, -tail:] *= np.linspace(1.0, 0.0, tail, dtype=np.float32)
    sound /= np.float32(np.max(np.abs(sound)))
    return sound


def layer_of(velocity: float) -> int:
    """The layer for a velocity, 0 … 1."""
    return min(LAYERS - 1, max(0, int(velocity * LAYERS)))


def _retuned(sound: FloatArray, head_hz: float, tonic: int, detuning: float) -> FloatArray:
    """The sound resampled by at most four and a half semitones."""
    pitch = 69.0 + 12.0 * np.log2(head_hz / 440.0)
    shifts = [(tonic + above - pitch + 6.0) % 12.0 - 6.0 for above in (0, 7)]
    to_tonic, to_fifth = shifts
    shift = to_tonic if abs(to_tonic) <= abs(to_fifth) + _TONIC_PREFERENCE else to_fifth
    ratio = detuning * 2.0 ** (shift / 12.0)
    frames = sound.shape[1]
    at = np.arange(int(frames / ratio)) * ratio
    return np.stack([np.interp(at, np.arange(frames), channel) for channel in sound]).astype(np.float32)


def _softened(sound: FloatArray, hardness: float) -> FloatArray:
    """A soft hit is duller, and dies away sooner."""
    if hardness > 0.8:
        return sound
    frames = sound.shape[1]
    size = 1 << (frames - 1).bit_length()
    hz = np.fft.rfftfreq(size, 1.0 / RATE_HZ).astype(np.float32)
    corner = np.float32(1800.0 + 11_000.0 * hardness)
    spectrum = np.fft.rfft(sound, size, axis=1) / np.sqrt(1.0 + (hz / corner) ** 2)
    dull = np.fft.irfft(spectrum, size, axis=1)[:, :frames].astype(np.float32)
    out: FloatArray = dull * np.exp(-seconds_of(frames / RATE_HZ + 0.001)[:frames] * np.float32(4.0 * (1.0 - hardness)))
    return out


# The frequency at which the head of each tuned drum rings.
_HEAD_HZ: Final = {
    "kick": 52.0, "boom kick": 48.0, "trap kick": 50.0, "house kick": 50.0, "techno kick": 46.0, "soft kick": 55.0,
    "metal kick": 56.0, "snare": 185.0, "boom snare": 200.0, "trap snare": 240.0, "break snare": 225.0,
    "rock snare": 175.0, "lofi snare": 190.0, "metal snare": 205.0, "funk snare": 230.0, "reggae snare": 300.0,
    "gated snare": 180.0, "dub snare": 205.0, "tom high": 165.0, "tom mid": 125.0, "tom low": 92.0,
    "conga high": 245.0, "conga low": 180.0, "bongo": 390.0, "timbale": 340.0, "timpani": 98.0,
}  # fmt: skip

_RISING: Final = frozenset({"riser", "reverse crash", "swell"})

_RECIPES: Final[dict[str, Callable[[Strike], FloatArray]]] = {
    "kick": partial(skins.kick, length=0.38, start_hz=190.0, end_hz=52.0, body=0.10, click=0.34, drive=1.5),
    "boom kick": partial(
        skins.kick, length=0.46, start_hz=150.0, end_hz=48.0, body=0.13, click=0.2, drive=2.2, fall=0.02
    ),
    "trap kick": partial(skins.kick, length=0.34, start_hz=210.0, end_hz=50.0, body=0.09, click=0.3, drive=2.2),
    "house kick": partial(
        skins.kick, length=0.36, start_hz=260.0, end_hz=50.0, body=0.11, click=0.26, drive=2.4, hold=0.03
    ),
    "techno kick": partial(
        skins.kick, length=0.42, start_hz=300.0, end_hz=46.0, body=0.14, click=0.24, drive=3.4, hold=0.035
    ),
    "soft kick": partial(
        skins.kick, length=0.32, start_hz=120.0, end_hz=55.0, body=0.09, click=0.06, drive=1.1, fall=0.02
    ),
    "metal kick": partial(
        skins.kick, length=0.2, start_hz=170.0, end_hz=56.0, body=0.05, click=0.75, drive=1.6, beater_hz=3900.0
    ),
    "snare": partial(skins.snare, tone_hz=185.0, body=0.07, rattle=0.11, low_hz=1500.0, mix=0.55),
    "boom snare": partial(skins.snare, tone_hz=200.0, body=0.06, rattle=0.085, low_hz=1100.0, mix=0.6, high_hz=7500.0),
    "trap snare": partial(skins.snare, tone_hz=240.0, body=0.05, rattle=0.10, low_hz=1800.0, mix=0.7, crack=0.8),
    "break snare": partial(skins.snare, tone_hz=225.0, body=0.06, rattle=0.075, low_hz=1300.0, mix=0.6, ring=0.12),
    "rock snare": partial(skins.snare, tone_hz=175.0, body=0.085, rattle=0.13, low_hz=1200.0, mix=0.6, ring=0.06),
    "metal snare": partial(skins.snare, tone_hz=205.0, body=0.035, rattle=0.10, low_hz=1600.0, mix=0.8, crack=1.0),
    "lofi snare": partial(
        skins.snare, tone_hz=190.0, body=0.06, rattle=0.07, low_hz=700.0, mix=0.4, high_hz=5000.0, crack=0.2
    ),
    "funk snare": partial(skins.snare, tone_hz=230.0, body=0.05, rattle=0.06, low_hz=1700.0, mix=0.6, ring=0.2),
    "reggae snare": partial(skins.snare, tone_hz=300.0, body=0.055, rattle=0.045, low_hz=2000.0, mix=0.35, ring=0.3),
    "gated snare": skins.gated_snare,
    "dub snare": skins.dub_snare,
    "tom high": partial(skins.tom, hz=165.0, ring=0.12),
    "tom mid": partial(skins.tom, hz=125.0, ring=0.15),
    "tom low": partial(skins.tom, hz=92.0, ring=0.18),
    "conga high": partial(skins.hand_drum, hz=245.0, ring=0.085, slap=0.35),
    "conga low": partial(skins.hand_drum, hz=180.0, ring=0.12, slap=0.25),
    "bongo": partial(skins.hand_drum, hz=390.0, ring=0.05, slap=0.4),
    "timbale": skins.timbale,
    "timpani": skins.timpani,
    "stomp": skins.stomp,
    "clap": sticks_and_hands.clap,
    "snap": sticks_and_hands.snap,
    "brush": sticks_and_hands.brush,
    "rim": sticks_and_hands.rim,
    "cross stick": sticks_and_hands.cross_stick,
    "shaker": sticks_and_hands.shaker,
    "hat": partial(metals.metal, length=0.1, ring=0.019, low_hz=6200.0, seed=21),
    "soft hat": partial(metals.metal, length=0.08, ring=0.015, low_hz=4800.0, seed=22, pitch=0.8),
    "open hat": partial(metals.metal, length=0.42, ring=0.1, low_hz=5600.0, seed=23),
    "pedal hat": partial(metals.metal, length=0.08, ring=0.02, low_hz=4200.0, seed=24, pitch=0.7),
    "ride": metals.ride,
    "crash": metals.crash,
    "china": metals.china,
    "cowbell": metals.cowbell,
    "tambourine": metals.tambourine,
    "riser": transitions.riser,
    "reverse crash": transitions.reverse_crash,
    "swell": transitions.swell,
    "impact": transitions.impact,
}
