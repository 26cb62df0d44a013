"""Decides how the level of a file is set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Annotated

from pydantic import Field

from export_service.dsp.measurement import LoudnessMeasurement
from service_runtime.audio.output_options import LoudnessProfile

GAIN_DIGITS = 4
"""Gains are rounded to 0.0001 dB."""
MIN_SECONDS = 0.4
"""One gating block: shorter audio has no loudness."""

PROFILE_TARGETS_LUFS = {
    LoudnessProfile.STREAMING: -14.0,  # The playback level of most music services.
    LoudnessProfile.DEFAULT: -16.0,  # AES TD1008, and Apple's Sound Check.
    LoudnessProfile.BROADCAST: -23.0,  # EBU R 128.
}


class NormalizationMode(Enum):
    """What is done to the level."""

    NONE = "none"
    LINEAR = "linear"
    LIMITED = "limited"


@dataclass(frozen=True)
class LoudnessTarget:
    """The loudness that a file is brought to, and the ceiling that its peaks stay below."""

    target_lufs: float | None
    """If None, the level is not changed, except to keep peaks below the ceiling."""
    ceiling_dbtp: float | None
    """If None, peaks are not limited; an integer file clips them at full scale."""


@dataclass(frozen=True)
class Normalization:
    """What is done to the level, and why."""

    mode: NormalizationMode
    target: Annotated[LoudnessTarget, Field(alias="aim")]
    """The JSON beside each render calls it "aim"."""
    gain_db: float
    """Applied to every sample; the limiter's reduction is additional."""
    shortfall_lu: float
    """How far the file stays below the target."""
    reason: str
    """Why the level was not changed or the target not reached; empty otherwise."""
    largest_reduction_db: float = 0.0
    """By the limiter: 0 to 6 dB."""
    limited_share: float = 0.0
    """The share of frames that the limiter reduced: 0 to 1."""


def plan_normalization(measurement: LoudnessMeasurement, target: LoudnessTarget) -> Normalization:
    """Plans one gain to the target, with a limiter if the true peak would exceed the ceiling.

    The shortfall and the reduction of a limiter are not known yet. A signal without a target, or too short or too quiet
    to have an integrated loudness, keeps its level unless it exceeds the ceiling, which would clip in a PCM file.
    """
    integrated, peak = measurement.loudness.integrated_lufs, measurement.peak_db
    headroom = math.inf if peak is None or target.ceiling_dbtp is None else target.ceiling_dbtp - peak
    if integrated is None or target.target_lufs is None:
        why = "the request leaves the level unchanged" if target.target_lufs is None else _explain_missing(measurement)
        if headroom >= 0:
            return Normalization(NormalizationMode.NONE, target, 0.0, 0.0, why)
        reason = f"{why}; turned down only to keep its peak of {peak:.2f} dBTP below the ceiling"
        return Normalization(NormalizationMode.LINEAR, target, _round_down(headroom), 0.0, reason)
    gain_db = target.target_lufs - integrated
    mode = NormalizationMode.LINEAR if gain_db <= headroom else NormalizationMode.LIMITED
    return Normalization(mode, target, round(gain_db, GAIN_DIGITS), 0.0, "")


def _explain_missing(measurement: LoudnessMeasurement) -> str:
    """Says why a signal has no integrated loudness."""
    if measurement.loudness.max_momentary_lufs is None and measurement.seconds < MIN_SECONDS:
        return f"the audio is too short to measure its loudness: {measurement.seconds:.3f} s, at least {MIN_SECONDS} s"
    return "the audio is too quiet to measure its loudness: nothing is above -70 LUFS"


def _round_down(gain_db: float) -> float:
    """Rounds towards the side that stays below the ceiling."""
    step = 10.0**-GAIN_DIGITS
    return round(gain_db - step / 2, GAIN_DIGITS)
