"""Planning the gain, and the reason that is reported."""

from __future__ import annotations

import pytest

from export_service.dsp.loudness import Loudness
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.dsp.normalization import PROFILE_TARGETS_LUFS, LoudnessTarget, NormalizationMode, plan_normalization
from service_runtime.audio.output_options import LoudnessProfile

TARGET = LoudnessTarget(target_lufs=-16.0, ceiling_dbtp=-1.0)


def measurement(integrated, peak, seconds=10.0, momentary=-20.0):
    return LoudnessMeasurement(Loudness(integrated, momentary, None, None), peak, peak, None, seconds)


@pytest.mark.parametrize(("integrated", "peak", "gain"), [(-20.0, -10.0, 4.0), (-10.0, 0.5, -6.0), (-18.0, -3.0, 2.0)])
def test_plan_is_one_gain_to_the_target(integrated, peak, gain):
    plan = plan_normalization(measurement(integrated, peak), TARGET)
    assert plan.mode is NormalizationMode.LINEAR
    assert plan.gain_db == gain
    assert (plan.shortfall_lu, plan.reason) == (0.0, "")


def test_plan_limits_if_true_peak_exceeds_the_ceiling():
    plan = plan_normalization(measurement(-20.0, -3.0), TARGET)
    assert (plan.mode, plan.gain_db) == (NormalizationMode.LIMITED, 4.0)


def test_plan_limits_if_a_sample_exceeds_the_ceiling():
    figures = LoudnessMeasurement(Loudness(-20.0, -19.0, None, None), -5.2, -4.9, None, 10.0)
    assert plan_normalization(figures, TARGET).mode is NormalizationMode.LIMITED


@pytest.mark.parametrize(("peak", "ceiling", "gain"), [(0.5, None, 0.0), (-1.5, -1.0, 0.0), (0.5, 0.0, -0.5)])
def test_plan_without_target_only_keeps_the_ceiling(peak, ceiling, gain):
    plan = plan_normalization(measurement(-9.0, peak), LoudnessTarget(None, ceiling))
    assert plan.mode is (NormalizationMode.LINEAR if gain else NormalizationMode.NONE)
    assert plan.gain_db == pytest.approx(gain, abs=1e-3)
    assert "leaves the level unchanged" in plan.reason


@pytest.mark.parametrize(("profile", "target"), [("streaming", -14), ("default", -16), ("broadcast", -23)])
def test_profile_targets(profile, target):
    assert PROFILE_TARGETS_LUFS[LoudnessProfile(profile)] == target


def test_plan_leaves_short_audio_unchanged():
    plan = plan_normalization(measurement(None, -3.0, seconds=0.3, momentary=None), TARGET)
    assert (plan.mode, plan.gain_db, plan.shortfall_lu) == (NormalizationMode.NONE, 0.0, 0.0)
    assert "0.300 s" in plan.reason


@pytest.mark.parametrize("peak", [None, -75.0])
def test_plan_leaves_quiet_audio_unchanged(peak):
    plan = plan_normalization(measurement(None, peak), TARGET)
    assert (plan.mode, plan.gain_db) == (NormalizationMode.NONE, 0.0)
    assert "-70 LUFS" in plan.reason


def test_plan_turns_down_short_audio_over_full_scale():
    plan = plan_normalization(measurement(None, 3.0, seconds=0.1, momentary=None), TARGET)
    assert plan.mode is NormalizationMode.LINEAR
    assert plan.gain_db == pytest.approx(-4.0, abs=1e-3)
    assert "below the ceiling" in plan.reason
