"""How the level of a file is set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from export_service.measurement import Measured


class NormalizationMode(Enum):
    """What was done to the level."""

    NONE = "none"
    LINEAR = "linear"


@dataclass(frozen=True)
class Aim:
    """Where levels are brought to."""

    target_lufs: float
    ceiling_dbtp: float


@dataclass(frozen=True)
class Normalization:
    """One gain for the whole file, and why it is what it is."""

    mode: NormalizationMode
    aim: Aim
    gain_db: float
    shortfall_lu: float
    """How far below the target the gain was held back."""
    reason: str
    """Why the level was left alone or held back; empty otherwise."""


GAIN_DIGITS = 4
"""Gains are rounded to 0.0001 dB."""


def normalization(measured: Measured, aim: Aim) -> Normalization:
    """Decides the gain: to the target, held back where the true peak would pass the ceiling.

    What is too short or too quiet to have an integrated loudness keeps its level, unless it passes the ceiling: a PCM
    file would clip.
    """
    integrated, peak = measured.loudness.integrated_lufs, measured.true_peak_dbtp
    headroom = None if peak is None else aim.ceiling_dbtp - peak
    if integrated is None:
        why = _unmeasurable(measured)
        if headroom is None or headroom >= 0:
            return Normalization(NormalizationMode.NONE, aim, 0.0, 0.0, why)
        reason = f"{why}; turned down only to keep its true peak of {peak:.2f} dBTP under the ceiling"
        return Normalization(NormalizationMode.LINEAR, aim, _down(headroom), 0.0, reason)
    wanted = aim.target_lufs - integrated
    if headroom is None or wanted <= headroom:
        return Normalization(NormalizationMode.LINEAR, aim, round(wanted, GAIN_DIGITS), 0.0, "")
    gain = _down(headroom)
    shortfall = round(wanted - gain, GAIN_DIGITS)
    reason = (
        f"held back {shortfall:.2f} LU below the target: a gain of {wanted:+.2f} dB would bring the true peak "
        f"to {wanted - headroom + aim.ceiling_dbtp:+.2f} dBTP"
    )
    return Normalization(NormalizationMode.LINEAR, aim, gain, shortfall, reason)


def _unmeasurable(measured: Measured) -> str:
    if measured.loudness.max_momentary_lufs is None and measured.seconds < 0.4:
        return f"too short to have a loudness: {measured.seconds:.3f} s of the 0.4 s needed"
    return "too quiet to have a loudness: nothing is above -70 LUFS"


def _down(gain_db: float) -> float:
    """Rounded to the side that stays under the ceiling."""
    step = 10.0**-GAIN_DIGITS
    return round(gain_db - step / 2, GAIN_DIGITS)
