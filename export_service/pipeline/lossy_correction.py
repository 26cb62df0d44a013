"""Brings a lossy file to its target, although its encoder takes away loudness and adds peaks.

The file is decoded and measured, and encoded again with a higher loudness target and a lower ceiling until the decoded
samples meet those that were asked for. That costs no loudness as long as the limiter can reduce peaks further.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from export_service.dsp.gain_solver import NormalizedSignal
from export_service.dsp.limiter import MAX_REDUCTION_DB
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.dsp.normalization import LoudnessTarget, Normalization

MAX_ENCODINGS = 6
LOUDNESS_TOLERANCE_LU = 0.09
"""A decoded file is accepted within this distance; another meter then reads at most 0.1 LU."""
HEADROOM_DB = 0.05
"""Extra reduction of the ceiling before encoding again, doubled each time. Reducing it by the measured excess alone
is not enough, because the peaks of the next encoding differ a little."""
MIN_RAISE_LU = 0.01
"""Raising the level by less is not worth encoding again."""


@dataclass(frozen=True)
class Encoding:
    """An encoded file."""

    signal: NormalizedSignal
    """What was encoded."""
    decoded: LoudnessMeasurement
    """The figures of what its decoder returns."""


def encode_to_target(
    encode: Callable[[LoudnessTarget], Encoding], source: LoudnessMeasurement, target: LoudnessTarget
) -> tuple[LoudnessMeasurement, Normalization]:
    """Returns the figures of the decoded file, and what was done to its level.

    `encode` brings the samples, of which `source` are the figures, to a target and replaces the file.
    """
    first = encoding = encode(target)
    # Without a target, the file should be as loud as what was encoded.
    unchanged_lufs = first.signal.measurement.loudness.integrated_lufs
    is_unchanged = target.target_lufs is None or unchanged_lufs is None
    wanted_lufs = unchanged_lufs if is_unchanged else target.target_lufs
    aim, count = replace(target, target_lufs=wanted_lufs), 1
    while True:
        shortfall_lu = _subtract(wanted_lufs, encoding.decoded.loudness.integrated_lufs)
        excess_db = _subtract(encoding.decoded.peak_db, target.ceiling_dbtp)
        if (excess_db <= 0 and abs(shortfall_lu) <= LOUDNESS_TOLERANCE_LU) or count == MAX_ENCODINGS:
            break
        corrected = _correct(aim, shortfall_lu, excess_db, HEADROOM_DB * 2 ** (count - 1))
        if is_unchanged:
            corrected = _without_limiter(corrected, source)
        if excess_db <= 0 and shortfall_lu > 0 and _is_exhausted(encoding, aim, corrected):
            break
        aim, count, encoding = corrected, count + 1, encode(corrected)
    reasons = [first.signal.normalization.reason] if is_unchanged else []
    if abs(shortfall_lu) > LOUDNESS_TOLERANCE_LU:
        reasons.append(_explain_loudness(encoding, shortfall_lu, count, is_unchanged=is_unchanged))
    elif is_unchanged and count > 1:
        reasons.append("the gain makes up for what the encoder changes")
    if excess_db > 0:
        reasons.append(f"its peak is {excess_db:.2f} dB above the ceiling after {count} encodings")
    is_short = shortfall_lu > LOUDNESS_TOLERANCE_LU and not is_unchanged
    return encoding.decoded, replace(
        encoding.signal.normalization,
        target=target,
        shortfall_lu=shortfall_lu if is_short else 0.0,
        reason="; ".join(reasons),
    )


def _correct(aim: LoudnessTarget, shortfall_lu: float, excess_db: float, headroom_db: float) -> LoudnessTarget:
    """Returns the aim, raised by what the decoded file lacks, and with its ceiling lowered by what exceeds it."""
    target_lufs, ceiling_dbtp = aim.target_lufs, aim.ceiling_dbtp
    if target_lufs is not None:
        target_lufs += shortfall_lu
    if ceiling_dbtp is not None and excess_db > 0:
        ceiling_dbtp -= excess_db + headroom_db
    return LoudnessTarget(target_lufs, ceiling_dbtp)


def _without_limiter(aim: LoudnessTarget, source: LoudnessMeasurement) -> LoudnessTarget:
    """Returns the aim, lowered to what one gain can reach: a level that is to be kept does not justify limiting."""
    highest_gain_db = _subtract(aim.ceiling_dbtp, source.peak_db)
    integrated_lufs = source.loudness.integrated_lufs
    if aim.target_lufs is None or integrated_lufs is None:
        return aim
    return replace(aim, target_lufs=min(aim.target_lufs, integrated_lufs + highest_gain_db))


def _is_exhausted(encoding: Encoding, aim: LoudnessTarget, corrected: LoudnessTarget) -> bool:
    """Returns whether the file would not get louder with the corrected aim."""
    is_limiter_exhausted = encoding.signal.normalization.shortfall_lu > 0
    return is_limiter_exhausted or _subtract(corrected.target_lufs, aim.target_lufs) < MIN_RAISE_LU


def _explain_loudness(encoding: Encoding, shortfall_lu: float, count: int, *, is_unchanged: bool) -> str:
    """Says by how much and why the decoded file misses the loudness that it should have."""
    if shortfall_lu > 0 and encoding.signal.normalization.shortfall_lu > 0:
        why = (
            f"reaching it would need more than {MAX_REDUCTION_DB:g} dB of limiting, also of peaks that the encoder adds"
        )
        return f"held back {shortfall_lu:.2f} LU below the target: {why}"
    if is_unchanged:
        change = "takes away" if shortfall_lu > 0 else "adds"
        return f"the encoder {change} {abs(shortfall_lu):.2f} LU, and the ceiling leaves no room to make up for it"
    side = "below" if shortfall_lu > 0 else "above"
    return f"{abs(shortfall_lu):.2f} LU {side} the target: {count} encodings did not get closer"


def _subtract(figure: float | None, other: float | None) -> float:
    """Returns 0 if one of the figures does not exist."""
    return 0.0 if figure is None or other is None else figure - other
