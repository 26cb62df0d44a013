"""Finds the gain and the limiter settings that bring a measured signal to its loudness target."""

from __future__ import annotations

from dataclasses import dataclass, replace

from export_service.dsp.envelope import BlockSource
from export_service.dsp.limiter import (
    FAST_RELEASE,
    GENTLE_RELEASE,
    MAX_REDUCTION_DB,
    GainReduction,
    Limiter,
    LimiterSettings,
    ReleaseProfile,
)
from export_service.dsp.measurement import LimitedSignalMeter, LoudnessMeasurement, SignalMeter
from export_service.dsp.normalization import (
    GAIN_DIGITS,
    LoudnessTarget,
    Normalization,
    NormalizationMode,
    plan_normalization,
)

CEILING_MARGIN_DB = 0.2
"""The limiter aims this far below the ceiling, because other meters read higher near half the sample rate."""
LOUDNESS_TOLERANCE_LU = 0.02
PEAK_TOLERANCE_DB = 0.05
ON_TARGET_TOLERANCE_LU = 0.1
"""EBU Tech 3341 treats two levels within this distance as equal."""
MAX_PASSES = 5
"""Over the whole signal, for each release profile; one pass is nearly always enough."""
MAX_ESTIMATES = 12
ESTIMATE_TOLERANCE_LU = 0.005
MIN_SLOPE = 0.2
"""With a smaller slope, one estimate would move the gain too far."""


@dataclass(frozen=True)
class NormalizedSignal:
    """A signal at its target loudness."""

    normalization: Normalization
    measurement: LoudnessMeasurement
    """Of the normalized signal."""
    blocks: BlockSource
    """The signal before `gain_db`."""
    gain_db: float
    """Still to be applied to the blocks."""


def normalize(
    meter: SignalMeter, source: LoudnessMeasurement, blocks: BlockSource, target: LoudnessTarget
) -> NormalizedSignal:
    """Brings `blocks` to the target. `source` is their measurement by `meter`, which must have recorded an envelope."""
    plan = plan_normalization(source, target)
    if plan.mode is not NormalizationMode.LIMITED:
        return NormalizedSignal(plan, source.with_gain(plan.gain_db), blocks, plan.gain_db)
    assert meter.envelope is not None
    assert target.target_lufs is not None
    assert target.ceiling_dbtp is not None
    limiter = Limiter(meter.envelope, blocks, meter.sample_rate_hz)
    return _GainSolver(meter, limiter, plan, target.target_lufs, target.ceiling_dbtp).solve()


class _GainSolver:
    """Searches for the gain and the ceiling that bring a limited signal to its target.

    The effect of limiting on the loudness is first estimated from the envelope, which is cheap, until the gain fits.
    Then the limited signal itself is measured, and gain and ceiling are corrected by the errors found.
    """

    def __init__(
        self,
        source: SignalMeter,
        limiter: Limiter,
        plan: Normalization,
        target_lufs: float,
        ceiling_dbtp: float,
    ) -> None:
        self._source, self._limiter, self._plan = source, limiter, plan
        self._target_lufs, self._ceiling_dbtp = target_lufs, ceiling_dbtp

    def solve(self) -> NormalizedSignal:
        """Uses the gentle release unless only the fast one reaches the target."""
        gentle = self._solve_with(GENTLE_RELEASE)
        if gentle.normalization.shortfall_lu <= ON_TARGET_TOLERANCE_LU:
            return gentle
        fast = self._solve_with(FAST_RELEASE)
        return fast if fast.normalization.shortfall_lu <= ON_TARGET_TOLERANCE_LU else gentle

    def _solve_with(self, release: ReleaseProfile) -> NormalizedSignal:
        """Limits and measures the signal until it fits, or until the limiter may not reduce it any further."""
        gain_db, limiter_ceiling_dbtp = self._plan.gain_db, self._ceiling_dbtp - CEILING_MARGIN_DB
        estimate_target_lufs, history = self._target_lufs, list[tuple[float, float]]()
        for _ in range(MAX_PASSES):
            settings, reduction, estimate = self._estimate_gain(
                LimiterSettings(gain_db, limiter_ceiling_dbtp, release), estimate_target_lufs
            )
            measurement, peak_db = self._measure(settings)
            loudness = _or_default(measurement.loudness.integrated_lufs, estimate)
            shortfall_lu = self._target_lufs - loudness
            excess_db = _or_default(peak_db, limiter_ceiling_dbtp) - (self._ceiling_dbtp - CEILING_MARGIN_DB)
            is_loud_enough = abs(shortfall_lu) <= LOUDNESS_TOLERANCE_LU or (
                shortfall_lu > 0 and reduction.max_db > MAX_REDUCTION_DB - PEAK_TOLERANCE_DB
            )
            if is_loud_enough and excess_db <= PEAK_TOLERANCE_DB:
                break
            history.append((estimate, loudness))
            estimate_target_lufs = estimate + shortfall_lu / _slope(history[-2:])
            gain_db, limiter_ceiling_dbtp = settings.gain_db, limiter_ceiling_dbtp - max(excess_db, 0.0)
        # The ceiling is a promise: if the search has not met it, turn the whole signal down.
        down_db = max(excess_db - CEILING_MARGIN_DB, 0.0)
        settings = replace(settings, gain_db=settings.gain_db - down_db, ceiling_dbtp=settings.ceiling_dbtp - down_db)
        return self._build_result(settings, reduction, measurement.with_gain(-down_db), shortfall_lu + down_db)

    def _estimate_gain(
        self, settings: LimiterSettings, target_lufs: float
    ) -> tuple[LimiterSettings, GainReduction, float]:
        """Starting from the settings' gain, finds the gain that brings the limited signal to the target or to the
        maximum reduction. Returns the settings, the reduction and the estimated loudness in LUFS.
        """
        max_gain_db = self._limiter.max_gain_db(settings)
        gain_db, history = settings.gain_db, list[tuple[float, float]]()
        while True:
            settings = replace(settings, gain_db=min(round(gain_db, GAIN_DIGITS), max_gain_db))
            reduction = self._limiter.reduction(settings)
            loudness = _or_default(
                self._source.loudness.integrated_after_reduction(reduction.hop_energies, settings.gain_db), target_lufs
            )
            shortfall_lu = target_lufs - loudness
            history.append((settings.gain_db, loudness))
            is_found = abs(shortfall_lu) <= ESTIMATE_TOLERANCE_LU or (
                shortfall_lu > 0 and settings.gain_db >= max_gain_db
            )
            if is_found or len(history) == MAX_ESTIMATES:
                return settings, reduction, loudness
            gain_db = settings.gain_db + shortfall_lu / _slope(history[-2:])

    def _measure(self, settings: LimiterSettings) -> tuple[LoudnessMeasurement, float | None]:
        """Measures the limited signal. Returns its figures and the highest peak that any meter would read, in dB."""
        meter = LimitedSignalMeter(self._source.sample_rate_hz, self._source.channels)
        for segment, limits in self._limiter.segments(settings):
            meter.feed_segment(segment, limits)
        return meter.finish(), meter.highest_peak_db()

    def _build_result(
        self,
        settings: LimiterSettings,
        reduction: GainReduction,
        measurement: LoudnessMeasurement,
        shortfall_lu: float,
    ) -> NormalizedSignal:
        is_short = shortfall_lu > LOUDNESS_TOLERANCE_LU
        reason = (
            f"held back {shortfall_lu:.2f} LU below the target: reaching it would need more than "
            f"{MAX_REDUCTION_DB:g} dB of limiting"
        )
        normalization = replace(
            self._plan,
            gain_db=settings.gain_db,
            shortfall_lu=shortfall_lu if is_short else 0.0,
            reason=reason if is_short else "",
            largest_reduction_db=reduction.max_db,
            limited_share=reduction.share,
        )
        return NormalizedSignal(normalization, measurement, lambda: self._limiter.blocks(settings), 0.0)


def _or_default(figure: float | None, default: float) -> float:
    """Handles a signal that fell below the gate, which can happen because a target may be that low."""
    return default if figure is None else figure


def _slope(history: list[tuple[float, float]]) -> float:
    """Returns how much the second figure grows with the first over the last two tries: MIN_SLOPE to 1."""
    if len(history) < 2 or history[0][0] == history[1][0]:
        return 1.0
    return min(max((history[1][1] - history[0][1]) / (history[1][0] - history[0][0]), MIN_SLOPE), 1.0)
