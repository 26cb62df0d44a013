"""The search for what to encode, with encoders whose effect on loudness and peaks is a formula."""

from __future__ import annotations

from dataclasses import replace

import pytest

from export_service.dsp.gain_solver import CEILING_MARGIN_DB, NormalizedSignal
from export_service.dsp.loudness import Loudness
from export_service.dsp.measurement import LoudnessMeasurement
from export_service.dsp.normalization import LoudnessTarget, NormalizationMode, plan_normalization
from export_service.pipeline.lossy_correction import MAX_ENCODINGS, Encoding, encode_to_target

TARGET = LoudnessTarget(-16.0, -1.0)


def figures(integrated_lufs, peak_db):
    return LoudnessMeasurement(Loudness(integrated_lufs, None, None, None), peak_db, peak_db, None, 10.0)


class Encoder:
    """Normalizes like `normalize`, with a limiter that takes off up to 6 dB, and changes the result by `effect`."""

    def __init__(self, source, effect):
        self.source, self.effect = source, effect
        self.aims = []
        self.decoded = None

    def __call__(self, aim):
        self.aims.append(aim)
        plan = plan_normalization(self.source, aim)
        measurement = self.source.with_gain(plan.gain_db)
        if plan.mode is NormalizationMode.LIMITED:
            limited_peak_db = aim.ceiling_dbtp - CEILING_MARGIN_DB
            highest = self.source.loudness.integrated_lufs + limited_peak_db + 6 - self.source.peak_db
            loudness = min(aim.target_lufs, highest)
            measurement = figures(loudness, limited_peak_db)
            plan = replace(plan, shortfall_lu=aim.target_lufs - loudness)
        self.decoded = figures(*self.effect(measurement.loudness.integrated_lufs, measurement.peak_db))
        return Encoding(NormalizedSignal(plan, measurement, lambda: iter(()), 0.0), self.decoded)


@pytest.mark.parametrize(
    ("source", "effect", "target", "encodings", "lufs"),
    [
        # An encoder that changes nothing, or too little to matter.
        ((-20, -10), lambda lufs, peak: (lufs, peak), TARGET, 1, -16.0),
        ((-20, -10), lambda lufs, peak: (lufs - 0.08, peak), TARGET, 1, -16.08),
        # One that takes away loudness, one that adds some, and one that does so less the louder it is.
        ((-20, -10), lambda lufs, peak: (lufs - 0.3, peak), TARGET, 2, -16.0),
        ((-20, -10), lambda lufs, peak: (lufs + 0.5, peak), TARGET, 2, -16.0),
        ((-20, -10), lambda lufs, peak: (0.9 * lufs - 2, peak), TARGET, 2, -16.04),
        # One that adds peaks, which the limiter takes off.
        ((-20, -5.5), lambda lufs, peak: (lufs - 0.2, peak + 1), TARGET, 2, -16.0),
        # A limiter at its bound: 0.5 LU are missing, and flattened peaks let it go further.
        ((-20, 3), lambda lufs, peak: (lufs - 0.5, peak), LoudnessTarget(-16, 0), 1, -17.7),
        ((-20, 1.3), lambda lufs, peak: (lufs, peak - 2), TARGET, 2, -16.0),
        # A level that is to be kept: made up for, as far as the peaks leave room, and turned down for the ceiling only.
        ((-20, -10), lambda lufs, peak: (lufs - 0.3, peak), LoudnessTarget(None, -1), 2, -20.0),
        ((-20, -1), lambda lufs, peak: (lufs - 0.3, peak), LoudnessTarget(None, -1), 1, -20.3),
        ((-20, 2), lambda lufs, peak: (lufs, peak), LoudnessTarget(None, -1), 1, -23.0),
        ((-20, -1), lambda lufs, peak: (lufs, peak + 0.5), LoudnessTarget(None, -1), 2, -20.55),
        # Audio without an integrated loudness.
        ((None, -60), lambda lufs, peak: (None, peak), TARGET, 1, None),
        ((None, 0), lambda lufs, peak: (None, peak + 0.5), TARGET, 2, None),
    ],
)
def test_encodings_that_are_needed(source, effect, target, encodings, lufs):
    source = figures(*source)
    encoder = Encoder(source, effect)
    decoded, normalization = encode_to_target(encoder, source, target)
    assert len(encoder.aims) == encodings
    assert decoded == encoder.decoded
    assert decoded.loudness.integrated_lufs == (None if lufs is None else pytest.approx(lufs, abs=0.05))
    assert decoded.peak_db <= target.ceiling_dbtp
    assert normalization.target == target


def test_closest_encoding_is_kept_if_the_encoder_changes_the_loudness_in_steps():
    source = figures(-20, -12)
    encoder = Encoder(source, lambda lufs, peak: (-15.8 if lufs > -15.9 else -16.7, peak))
    decoded, normalization = encode_to_target(encoder, source, TARGET)
    assert len(encoder.aims) <= MAX_ENCODINGS + 1
    assert decoded.loudness.integrated_lufs == encoder.decoded.loudness.integrated_lufs == -15.8
    assert normalization.shortfall_lu == 0
    assert normalization.reason == "0.20 LU above the target: the encoder changes the loudness in larger steps"


def test_search_ends_although_every_encoding_has_peaks_above_the_ceiling():
    source = figures(-20, -12)
    encoder = Encoder(source, lambda lufs, _: (lufs, 0.5))
    decoded, normalization = encode_to_target(encoder, source, TARGET)
    assert len(encoder.aims) <= MAX_ENCODINGS + 1
    assert decoded == encoder.decoded
    assert normalization.reason.endswith(f"its peak is 1.50 dB above the ceiling after {MAX_ENCODINGS} encodings")
