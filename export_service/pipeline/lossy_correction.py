"""Brings a lossy file to its target, although its encoder changes the loudness and the peaks.

The file is decoded and measured, and encoded again with a corrected loudness and ceiling until the decoded samples meet
those that were asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from export_service.dsp.gain_solver import CEILING_MARGIN_DB, ON_TARGET_TOLERANCE_LU, NormalizedSignal
from export_service.dsp.limiter import MAX_REDUCTION_DB
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.dsp.normalization import LoudnessTarget, Normalization

MAX_ENCODINGS = 6
"""One or two are nearly always enough."""
LOUDNESS_TOLERANCE_LU = 0.09
"""A decoded file is accepted within this distance; another meter then reads at most 0.1 LU."""
HEADROOM_DB = 0.05
"""Extra reduction of the ceiling before encoding again, doubled each time. Reducing it by the measured excess alone
is not enough, because the peaks of the next encoding differ a little."""
MIN_STEP_LU, MIN_CEILING_STEP_DB = 0.02, 0.3
"""Raising the loudness or the ceiling by less is not worth encoding again."""
MAX_LIMITER_CEILING_DBTP = 0.0
"""Where the encoder flattens peaks, the limiter's ceiling is raised up to here."""


@dataclass(frozen=True)
class Encoding:
    """An encoded file."""

    signal: NormalizedSignal
    """What was encoded."""
    decoded: LoudnessMeasurement
    """The figures of what its decoder returns."""


@dataclass(frozen=True)
class _Trial:
    """An encoding, and by how much it misses its target."""

    aim: LoudnessTarget
    encoding: Encoding
    shortfall_lu: float
    excess_db: float
    """By how much the peak exceeds the ceiling."""

    @property
    def is_limiter_exhausted(self) -> bool:
        """Whether no gain would make the signal louder."""
        return self.encoding.signal.normalization.shortfall_lu > 0

    @property
    def is_loudness_met(self) -> bool:
        """Whether another encoding would not improve the loudness."""
        return abs(self.shortfall_lu) <= LOUDNESS_TOLERANCE_LU

    @property
    def encoded_lufs(self) -> float | None:
        """The loudness before encoding."""
        return self.encoding.signal.measurement.loudness.integrated_lufs


def encode_to_target(
    encode: Callable[[LoudnessTarget], Encoding], source: LoudnessMeasurement, target: LoudnessTarget
) -> tuple[LoudnessMeasurement, Normalization]:
    """Returns the figures of the decoded file, and what was done to its level.

    `encode` brings the samples, of which `source` are the figures, to a target and replaces the file.
    """
    first = encode(target)
    # Without a target, the file should be as loud as what was encoded.
    unchanged_lufs = first.signal.measurement.loudness.integrated_lufs
    keeps_level = target.target_lufs is None or unchanged_lufs is None
    wanted_lufs = unchanged_lufs if keeps_level else target.target_lufs

    def assess(aim: LoudnessTarget, encoding: Encoding) -> _Trial:
        shortfall_lu = _subtract(wanted_lufs, encoding.decoded.loudness.integrated_lufs)
        return _Trial(aim, encoding, shortfall_lu, _subtract(encoding.decoded.peak_db, target.ceiling_dbtp))

    trials = [assess(replace(target, target_lufs=wanted_lufs), first)]
    while len(trials) < MAX_ENCODINGS and (aim := _next_aim(trials, source, may_limit=not keeps_level)) is not None:
        trials.append(assess(aim, encode(aim)))
    best = min(trials, key=lambda trial: (max(trial.excess_db, 0.0), abs(trial.shortfall_lu)))
    if best is not trials[-1]:
        encode(best.aim)
    return best.encoding.decoded, _describe(best, trials, target, keeps_level=keeps_level)


def _next_aim(trials: Sequence[_Trial], source: LoudnessMeasurement, *, may_limit: bool) -> LoudnessTarget | None:
    """Returns what to encode next, or None if the file is on target or would not get closer to it."""
    last = trials[-1]
    if last.excess_db <= 0 and last.is_loudness_met:
        return None
    if last.excess_db > 0 and any(_subtract(last.aim.ceiling_dbtp, lower) > 0 for lower in _met_ceilings(trials)):
        return None  # It was raised too far.
    ceiling_dbtp = _next_ceiling(trials, CEILING_MARGIN_DB if may_limit else 0.0)
    aim = LoudnessTarget(_next_lufs(trials), ceiling_dbtp)
    if not may_limit:
        aim = _without_limiter(aim, source)
    if ceiling_dbtp != last.aim.ceiling_dbtp:
        return aim
    is_closer = all(abs(_subtract(aim.target_lufs, other.encoded_lufs)) >= MIN_STEP_LU for other in trials)
    return aim if is_closer and not (last.is_limiter_exhausted and last.shortfall_lu > 0) else None


def _met_ceilings(trials: Sequence[_Trial]) -> list[float | None]:
    """Returns the limiter's ceilings with which the decoded peaks stayed below theirs."""
    return [trial.aim.ceiling_dbtp for trial in trials if trial.excess_db <= 0]


def _next_ceiling(trials: Sequence[_Trial], margin_db: float) -> float | None:
    """Returns the limiter's ceiling: lower while the decoded peaks exceed theirs, and higher if that gains loudness.

    The limiter stays below its ceiling by a margin.
    """
    last = trials[-1]
    ceiling_dbtp = last.aim.ceiling_dbtp
    if ceiling_dbtp is None:
        return None
    if last.excess_db > 0:
        encoded_peak_db = last.encoding.signal.measurement.peak_db
        if encoded_peak_db is not None:  # A lower ceiling has no effect until it touches the peaks.
            ceiling_dbtp = min(ceiling_dbtp, encoded_peak_db + margin_db)
        return ceiling_dbtp - last.excess_db - HEADROOM_DB * 2.0 ** (len(trials) - 1)
    if last.is_loudness_met or not last.is_limiter_exhausted:
        return ceiling_dbtp
    step_db = min(-last.excess_db, MAX_LIMITER_CEILING_DBTP - ceiling_dbtp)
    for other in trials:
        if other.excess_db > 0:  # Between the highest ceiling that was met and the lowest that was not.
            step_db = min(step_db, _subtract(other.aim.ceiling_dbtp, ceiling_dbtp) / 2)
    return ceiling_dbtp + step_db if step_db >= MIN_CEILING_STEP_DB else ceiling_dbtp


def _next_lufs(trials: Sequence[_Trial]) -> float | None:
    """Returns the loudness to encode with: raised by what the encoder takes away, or between two that were tried."""
    last = trials[-1]
    if last.encoded_lufs is None:
        return None
    quiet = [other.encoded_lufs for other in trials if other.shortfall_lu > 0 and other.encoded_lufs is not None]
    loud = [other.encoded_lufs for other in trials if other.shortfall_lu < 0 and other.encoded_lufs is not None]
    if quiet and loud and not last.is_loudness_met:
        return (max(quiet) + min(loud)) / 2
    return last.encoded_lufs + last.shortfall_lu


def _without_limiter(aim: LoudnessTarget, source: LoudnessMeasurement) -> LoudnessTarget:
    """Returns the aim, lowered to what one gain can reach: a level that is to be kept does not justify limiting."""
    if aim.target_lufs is None or source.loudness.integrated_lufs is None:
        return aim
    highest_lufs = source.loudness.integrated_lufs + _subtract(aim.ceiling_dbtp, source.peak_db)
    return replace(aim, target_lufs=min(aim.target_lufs, highest_lufs))


def _describe(trial: _Trial, trials: Sequence[_Trial], target: LoudnessTarget, *, keeps_level: bool) -> Normalization:
    """Returns what was done to the level, and by how much and why the decoded file misses its target."""
    reasons = [trials[0].encoding.signal.normalization.reason] if keeps_level else []
    distance_lu, is_short = abs(trial.shortfall_lu), trial.shortfall_lu > 0
    is_met = distance_lu <= ON_TARGET_TOLERANCE_LU
    if is_met:
        if keeps_level and trial is not trials[0]:
            reasons.append("the gain makes up for what the encoder changes")
    elif keeps_level:
        reasons.append(f"the encoder {'takes away' if is_short else 'adds'} {distance_lu:.2f} LU")
    elif is_short and trial.is_limiter_exhausted:
        limits = f"more than {MAX_REDUCTION_DB:g} dB of limiting, also of peaks that the encoder adds"
        reasons.append(f"held back {distance_lu:.2f} LU below the target: reaching it would need {limits}")
    else:
        side = "below" if is_short else "above"
        reasons.append(f"{distance_lu:.2f} LU {side} the target: the encoder changes the loudness in larger steps")
    if trial.excess_db > 0:
        reasons.append(f"its peak is {trial.excess_db:.2f} dB above the ceiling after {len(trials)} encodings")
    return replace(
        trial.encoding.signal.normalization,
        target=target,
        shortfall_lu=distance_lu if is_short and not keeps_level and not is_met else 0.0,
        reason="; ".join(reasons),
    )


def _subtract(figure: float | None, other: float | None) -> float:
    """Returns 0 if one of the figures does not exist."""
    return 0.0 if figure is None or other is None else figure - other
