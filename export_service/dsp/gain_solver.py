"""Brings a measured signal to the level that it is to have."""

from __future__ import annotations

from dataclasses import dataclass, replace

from export_service.dsp.envelope import Blocks
from export_service.dsp.limiter import BRISK, GENTLE, MAX_REDUCTION_DB, Limiter, Pace, Reduction, Setting
from export_service.dsp.measurement import Measured, Measurement
from export_service.dsp.normalization import GAIN_DIGITS, Aim, Normalization, NormalizationMode, normalization
from export_service.dsp.true_peak import TruePeakMeter, example_interpolator

INSIDE_DB = 0.2
"""So far under the ceiling the limiter aims: other meters read hotter near half the sample rate."""
TOLERANCE_LU = 0.02
TOLERANCE_DB = 0.05
ON_TARGET_LU = 0.1
"""Within which EBU Tech 3341 takes two levels for the same."""
MOST_PASSES = 5
"""Over the whole signal, at each pace; nearly always one is enough."""
MOST_ESTIMATES = 12
ESTIMATED_WITHIN_LU = 0.005
LEAST_SLOPE = 0.2
"""Below this a gain would be carried too far by one estimate."""


@dataclass(frozen=True)
class Levelled:
    """A signal at its level."""

    normalization: Normalization
    measured: Measured
    """Of the signal at its level."""
    blocks: Blocks
    """The signal, but for a gain."""
    gain_db: float
    """What is still to be applied to the blocks."""


def level(measurement: Measurement, source: Measured, blocks: Blocks, aim: Aim) -> Levelled:
    """Brings `blocks`, which gave the figures `source` of a measurement with an envelope, to where the aim says."""
    decided = normalization(source, aim)
    if decided.mode is not NormalizationMode.LIMITED:
        return Levelled(decided, source.moved(decided.gain_db), blocks, decided.gain_db)
    assert measurement.envelope is not None
    assert aim.target_lufs is not None
    assert aim.ceiling_dbtp is not None
    limiter = Limiter(measurement.envelope, blocks, measurement.sample_rate_hz)
    return _Levelling(measurement, limiter, decided, aim.target_lufs, aim.ceiling_dbtp).settle()


class _Levelling:
    """The search for the gain and the ceiling that bring a limited signal to its target.

    What limiting does to the loudness is estimated from the envelope, which costs little, until the gain fits; then
    the limited signal itself is measured, and both are corrected by what they are off by.
    """

    def __init__(
        self,
        source: Measurement,
        limiter: Limiter,
        decided: Normalization,
        target_lufs: float,
        ceiling_dbtp: float,
    ) -> None:
        self._source, self._limiter, self._decided = source, limiter, decided
        self._target_lufs, self._ceiling_dbtp = target_lufs, ceiling_dbtp

    def settle(self) -> Levelled:
        """Briskly only where that, and nothing else, reaches the target."""
        gentle = self._settled(GENTLE)
        if gentle.normalization.shortfall_lu <= ON_TARGET_LU:
            return gentle
        brisk = self._settled(BRISK)
        return brisk if brisk.normalization.shortfall_lu <= ON_TARGET_LU else gentle

    def _settled(self, pace: Pace) -> Levelled:
        """Goes through the signal until it fits, or until no more is taken off."""
        gain_db, inside_dbtp = self._decided.gain_db, self._ceiling_dbtp - INSIDE_DB
        aimed_lufs, tried = self._target_lufs, list[tuple[float, float]]()
        for _ in range(MOST_PASSES):
            setting, reduction, estimate = self._found(Setting(gain_db, inside_dbtp, pace), aimed_lufs)
            measured, peak_db = self._measured(setting)
            loudness = _or(measured.loudness.integrated_lufs, estimate)
            short = self._target_lufs - loudness
            over = _or(peak_db, inside_dbtp) - (self._ceiling_dbtp - INSIDE_DB)
            is_loud = abs(short) <= TOLERANCE_LU or (
                short > 0 and reduction.largest_db > MAX_REDUCTION_DB - TOLERANCE_DB
            )
            if is_loud and over <= TOLERANCE_DB:
                break
            tried.append((estimate, loudness))
            aimed_lufs = estimate + short / _slope(tried[-2:])
            gain_db, inside_dbtp = setting.gain_db, inside_dbtp - max(over, 0.0)
        # Whatever a signal is like, its peaks are where they were promised to be.
        down_db = max(over - INSIDE_DB, 0.0)
        setting = replace(setting, gain_db=setting.gain_db - down_db, ceiling_dbtp=setting.ceiling_dbtp - down_db)
        return self._levelled(setting, reduction, measured.moved(-down_db), short + down_db)

    def _found(self, setting: Setting, target_lufs: float) -> tuple[Setting, Reduction, float]:
        """The gain that brings the limited signal to the target or to the most reduction, found from the setting's on;
        with what it takes off, and the loudness that is left.
        """
        most_db = self._limiter.most_gain_db(setting)
        gain_db, tried = setting.gain_db, list[tuple[float, float]]()
        while True:
            setting = replace(setting, gain_db=min(round(gain_db, GAIN_DIGITS), most_db))
            reduction = self._limiter.reduction(setting)
            loudness = _or(
                self._source.loudness.integrated_without(reduction.hop_energies, setting.gain_db), target_lufs
            )
            short = target_lufs - loudness
            tried.append((setting.gain_db, loudness))
            is_found = abs(short) <= ESTIMATED_WITHIN_LU or (short > 0 and setting.gain_db >= most_db)
            if is_found or len(tried) == MOST_ESTIMATES:
                return setting, reduction, loudness
            gain_db = setting.gain_db + short / _slope(tried[-2:])

    def _measured(self, setting: Setting) -> tuple[Measured, float | None]:
        """The limited signal's figures, and the highest peak that a meter sees in it."""
        measurement = Measurement(self._source.sample_rate_hz, self._source.channels)
        simpler = TruePeakMeter(self._source.channels, example_interpolator())
        for block in self._limiter.blocks(setting):
            measurement.feed(block)
            simpler.feed(block)
        measured = measurement.finish()
        peaks = [peak for peak in (measured.peak_db, simpler.peak_dbtp()) if peak is not None]
        return measured, max(peaks, default=None)

    def _levelled(self, setting: Setting, reduction: Reduction, measured: Measured, short: float) -> Levelled:
        is_short = short > TOLERANCE_LU
        reason = (
            f"held back {short:.2f} LU below the target: more would need the limiter to take off more than "
            f"{MAX_REDUCTION_DB:g} dB"
        )
        made = replace(
            self._decided,
            gain_db=setting.gain_db,
            shortfall_lu=short if is_short else 0.0,
            reason=reason if is_short else "",
            largest_reduction_db=reduction.largest_db,
            limited_share=reduction.share,
        )
        return Levelled(made, measured, lambda: self._limiter.blocks(setting), 0.0)


def _or(figure: float | None, otherwise: float) -> float:
    """For a signal that fell below the gate: a target can be as low as that."""
    return otherwise if figure is None else figure


def _slope(tried: list[tuple[float, float]]) -> float:
    """By how much the second figure grows with the first, from the last two tries: at most 1."""
    if len(tried) < 2 or tried[0][0] == tried[1][0]:
        return 1.0
    return min(max((tried[1][1] - tried[0][1]) / (tried[1][0] - tried[0][0]), LEAST_SLOPE), 1.0)
