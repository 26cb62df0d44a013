"""The gain, and what is said of it."""

from __future__ import annotations

import pytest

from export_service.dsp.loudness import Loudness
from export_service.dsp.measurement import Measured
from export_service.dsp.normalization import PROFILES, Aim, NormalizationMode, Profile, normalization

AIM = Aim(target_lufs=-16.0, ceiling_dbtp=-1.0)


def measured(integrated, peak, seconds=10.0, momentary=-20.0):
    return Measured(Loudness(integrated, momentary, None, None), peak, peak, None, seconds)


@pytest.mark.parametrize(("integrated", "peak", "gain"), [(-20.0, -10.0, 4.0), (-10.0, 0.5, -6.0), (-18.0, -3.0, 2.0)])
def test_one_gain_to_the_target(integrated, peak, gain):
    decided = normalization(measured(integrated, peak), AIM)
    assert decided.mode is NormalizationMode.LINEAR
    assert decided.gain_db == gain
    assert (decided.shortfall_lu, decided.reason) == (0.0, "")


def test_a_limiter_where_the_true_peak_would_pass_the_ceiling():
    decided = normalization(measured(-20.0, -3.0), AIM)
    assert (decided.mode, decided.gain_db) == (NormalizationMode.LIMITED, 4.0)


def test_a_sample_that_would_pass_the_ceiling_is_limited_too():
    figures = Measured(Loudness(-20.0, -19.0, None, None), -5.2, -4.9, None, 10.0)
    assert normalization(figures, AIM).mode is NormalizationMode.LIMITED


@pytest.mark.parametrize(("peak", "ceiling", "gain"), [(0.5, None, 0.0), (-1.5, -1.0, 0.0), (0.5, 0.0, -0.5)])
def test_without_a_target_only_what_passes_the_ceiling_is_turned_down(peak, ceiling, gain):
    decided = normalization(measured(-9.0, peak), Aim(None, ceiling))
    assert decided.mode is (NormalizationMode.LINEAR if gain else NormalizationMode.NONE)
    assert decided.gain_db == pytest.approx(gain, abs=1e-3)
    assert "leave the level alone" in decided.reason


@pytest.mark.parametrize(("profile", "target"), [("streaming", -14), ("default", -16), ("broadcast", -23)])
def test_profiles(profile, target):
    assert PROFILES[Profile(profile)] == Aim(target, -1)


def test_too_short_is_left_alone():
    decided = normalization(measured(None, -3.0, seconds=0.3, momentary=None), AIM)
    assert (decided.mode, decided.gain_db, decided.shortfall_lu) == (NormalizationMode.NONE, 0.0, 0.0)
    assert "0.300 s" in decided.reason


@pytest.mark.parametrize("peak", [None, -75.0])
def test_too_quiet_is_left_alone(peak):
    decided = normalization(measured(None, peak), AIM)
    assert (decided.mode, decided.gain_db) == (NormalizationMode.NONE, 0.0)
    assert "-70 LUFS" in decided.reason


def test_too_short_but_over_full_scale_is_turned_down_rather_than_clipped():
    decided = normalization(measured(None, 3.0, seconds=0.1, momentary=None), AIM)
    assert decided.mode is NormalizationMode.LINEAR
    assert decided.gain_db == pytest.approx(-4.0, abs=1e-3)
    assert "under the ceiling" in decided.reason
