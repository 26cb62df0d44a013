"""How the level of a file is set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from export_service.dsp.measurement import Measured


class NormalizationMode(Enum):
    """What was done to the level."""

    NONE = "none"
    LINEAR = "linear"
    LIMITED = "limited"


@dataclass(frozen=True)
class Aim:
    """Where levels are brought to."""

    target_lufs: float | None
    """None: the level is left alone, but for what passes the ceiling."""
    ceiling_dbtp: float | None
    """None: peaks may go where they go, in an integer file up to full scale."""


class Profile(Enum):
    """Aims by the name of what the file is for."""

    STREAMING = "streaming"
    DEFAULT = "default"
    BROADCAST = "broadcast"


PROFILES = {
    Profile.STREAMING: Aim(-14.0, -1.0),  # What most music services play at.
    Profile.DEFAULT: Aim(-16.0, -1.0),  # AES TD1008, and Apple's Sound Check.
    Profile.BROADCAST: Aim(-23.0, -1.0),  # EBU R 128.
}


@dataclass(frozen=True)
class Normalization:
    """What was done to the level, and why."""

    mode: NormalizationMode
    aim: Aim
    gain_db: float
    """Applied to every sample; the limiter's reduction comes on top."""
    shortfall_lu: float
    """How far below the target the file stays."""
    reason: str
    """Why the level was left alone or held back; empty otherwise."""
    largest_reduction_db: float = 0.0
    """By the limiter, 0 to 6 dB."""
    limited_share: float = 0.0
    """Of all frames, those that the limiter turned down: 0 to 1."""


GAIN_DIGITS = 4
"""Gains are rounded to 0.0001 dB."""


def normalization(measured: Measured, aim: Aim) -> Normalization:
    """What is to be done: one gain to the target, and a limiter where the true peak would pass the ceiling.

    What the limiter makes of it remains to be seen. What is too short or too quiet to have an integrated loudness, or
    has no target, keeps its level, unless it passes the ceiling: a PCM file would clip.
    """
    integrated, peak = measured.loudness.integrated_lufs, measured.peak_db
    headroom = math.inf if peak is None or aim.ceiling_dbtp is None else aim.ceiling_dbtp - peak
    if integrated is None or aim.target_lufs is None:
        why = "asked to leave the level alone" if aim.target_lufs is None else _unmeasurable(measured)
        if headroom >= 0:
            return Normalization(NormalizationMode.NONE, aim, 0.0, 0.0, why)
        reason = f"{why}; turned down only to keep its peak of {peak:.2f} dBTP under the ceiling"
        return Normalization(NormalizationMode.LINEAR, aim, _down(headroom), 0.0, reason)
    wanted = aim.target_lufs - integrated
    mode = NormalizationMode.LINEAR if wanted <= headroom else NormalizationMode.LIMITED
    return Normalization(mode, aim, round(wanted, GAIN_DIGITS), 0.0, "")


def _unmeasurable(measured: Measured) -> str:
    if measured.loudness.max_momentary_lufs is None and measured.seconds < 0.4:
        return f"too short to have a loudness: {measured.seconds:.3f} s of the 0.4 s needed"
    return "too quiet to have a loudness: nothing is above -70 LUFS"


def _down(gain_db: float) -> float:
    """Rounded to the side that stays under the ceiling."""
    step = 10.0**-GAIN_DIGITS
    return round(gain_db - step / 2, GAIN_DIGITS)
