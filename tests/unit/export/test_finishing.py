"""The level of a file: what is asked for, and what an encoder makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from export_service.dsp.measurement import SignalMeter
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.writer import AudioFile
from export_service.pipeline import mastering
from export_service.pipeline.mastering import aim_for, finish
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions

DEFAULT = LoudnessTarget(-16.0, -1.0)
RATE = 48_000


def finished(path, samples, format_, aim):
    measurement = SignalMeter(RATE, 2, path.parent)
    measurement.feed(samples)
    try:
        audio = AudioFile(format_, RATE, 2, len(samples), None, 1)
        return finish(path, audio, measurement, aim, lambda: iter([samples]))
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
def test_where_the_options_bring_the_level(options, expected):
    assert aim_for(OutputOptions(**options), DEFAULT) == expected


@pytest.mark.parametrize("format_", [FileFormat.MP3, FileFormat.OGG_VORBIS, FileFormat.OGG_OPUS])
def test_what_comes_out_of_a_decoder_stays_under_the_ceiling(tmp_path, signals, libebur128, format_):
    result = finished(tmp_path / "a", signals.music(RATE, 4), format_, LoudnessTarget(-14.0, -1.0))
    samples, _ = soundfile.read(tmp_path / "a", dtype="float32")
    reference = libebur128(samples, RATE)
    assert result.file.peak_db <= -1.0
    assert result.file.loudness.integrated_lufs == pytest.approx(-14.0, abs=0.3)
    assert reference.true_peak_dbtp <= -0.9
    assert result.file.loudness.integrated_lufs == pytest.approx(reference.integrated_lufs, abs=0.02)
    assert result.normalization.target == LoudnessTarget(-14.0, -1.0)


def test_an_encoder_that_passes_the_ceiling_gets_a_lower_one(tmp_path, signals, monkeypatch):
    samples = signals.music(RATE, 4)
    aim = LoudnessTarget(-14.0, -1.0)
    result = finished(tmp_path / "a", samples, FileFormat.MP3, aim)
    monkeypatch.setattr(mastering, "ENCODINGS_AT_MOST", 1)
    once = finished(tmp_path / "b", samples, FileFormat.MP3, aim)
    assert once.file.peak_db > -1.0, "no case in point"
    assert result.file.peak_db <= -1.0


def test_room_for_an_encoder_costs_no_loudness_while_the_limiter_can_take_off_more(tmp_path, signals):
    result = finished(tmp_path / "a", signals.music(RATE, 4, seed=7), FileFormat.MP3, LoudnessTarget(-14.0, -1.0))
    assert result.file.peak_db <= -1.0
    assert result.normalization.shortfall_lu == 0 or result.normalization.largest_reduction_db > 5.9


@pytest.mark.parametrize("format_", FileFormat)
def test_digital_silence_in_every_format(tmp_path, format_):
    result = finished(tmp_path / "a", np.zeros((RATE, 2), np.float32), format_, DEFAULT)
    assert result.source.true_peak_dbtp is None
    assert result.frames == soundfile.info(tmp_path / "a").frames == RATE
