"""Loudness of mastered files: the target, and the peaks after lossy encoding."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from export_service.dsp.measurement import SignalMeter
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.writer import AudioFile
from export_service.pipeline import mastering
from export_service.pipeline.mastering import master_to_file, resolve_loudness_target
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions
from tests.support import signals

DEFAULT = LoudnessTarget(-16.0, -1.0)
RATE_HZ = 48_000


def master(path, samples, format_, target):
    measurement = SignalMeter(RATE_HZ, 2, path.parent)
    measurement.feed(samples)
    try:
        audio = AudioFile(format_, RATE_HZ, 2, len(samples), None, 1)
        return master_to_file(path, audio, measurement, target, lambda: iter([samples]))
    finally:
        measurement.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, DEFAULT),
        ({"ceiling_dbtp": -3.0}, LoudnessTarget(-16.0, -3.0)),
        ({"target_lufs": -18.5}, LoudnessTarget(-18.5, -1.0)),
        ({"profile": LoudnessProfile.STREAMING}, LoudnessTarget(-14.0, -1.0)),
        ({"profile": LoudnessProfile.DEFAULT, "ceiling_dbtp": 0.0}, LoudnessTarget(-16.0, 0.0)),
        ({"profile": LoudnessProfile.BROADCAST}, LoudnessTarget(-23.0, -1.0)),
        ({"profile": LoudnessProfile.NONE}, LoudnessTarget(None, 0.0)),
        ({"profile": LoudnessProfile.NONE, "ceiling_dbtp": -2.0}, LoudnessTarget(None, -2.0)),
        ({"profile": LoudnessProfile.NONE, "format": FileFormat.WAV_FLOAT}, LoudnessTarget(None, None)),
    ],
)
def test_resolve_loudness_target(options, expected):
    assert resolve_loudness_target(OutputOptions(**options), DEFAULT) == expected


@pytest.mark.parametrize("format_", [FileFormat.MP3, FileFormat.OGG_VORBIS, FileFormat.OGG_OPUS])
def test_lossy_file_stays_under_ceiling_after_decoding(tmp_path, format_):
    result = master(tmp_path / "a", signals.music(RATE_HZ, 4), format_, LoudnessTarget(-14.0, -1.0))
    samples, _ = soundfile.read(tmp_path / "a", dtype="float32")
    reference = signals.measured_by_libebur128(samples, RATE_HZ)
    assert result.file.peak_db <= -1.0
    assert result.file.loudness.integrated_lufs == pytest.approx(-14.0, abs=0.3)
    assert reference.true_peak_dbtp <= -0.9
    assert result.file.loudness.integrated_lufs == pytest.approx(reference.integrated_lufs, abs=0.02)
    assert result.normalization.target == LoudnessTarget(-14.0, -1.0)


def test_file_over_ceiling_is_encoded_again(tmp_path, monkeypatch):
    samples = signals.music(RATE_HZ, 4)
    target = LoudnessTarget(-14.0, -1.0)
    result = master(tmp_path / "a", samples, FileFormat.MP3, target)
    monkeypatch.setattr(mastering, "MAX_ENCODINGS", 1)
    once = master(tmp_path / "b", samples, FileFormat.MP3, target)
    assert once.file.peak_db > -1.0, "this case must need a second encoding"
    assert result.file.peak_db <= -1.0


def test_encoding_again_costs_no_loudness_below_maximum_reduction(tmp_path):
    result = master(tmp_path / "a", signals.music(RATE_HZ, 4, seed=7), FileFormat.MP3, LoudnessTarget(-14.0, -1.0))
    assert result.file.peak_db <= -1.0
    assert result.normalization.shortfall_lu == 0 or result.normalization.largest_reduction_db > 5.9


@pytest.mark.parametrize("format_", FileFormat)
def test_digital_silence_in_every_format(tmp_path, format_):
    result = master(tmp_path / "a", np.zeros((RATE_HZ, 2), np.float32), format_, DEFAULT)
    assert result.source.true_peak_dbtp is None
    assert result.frames == soundfile.info(tmp_path / "a").frames == RATE_HZ
