"""Loudness of mastered files: the target, and the peaks after lossy encoding."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.dsp.measurement import SignalMeter
from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.reader import open_sequential
from export_service.formats.writer import AudioFile
from export_service.pipeline import lossy_correction
from export_service.pipeline.mastering import master_to_file, resolve_loudness_target
from service_runtime.audio.output_options import FileFormat, LoudnessProfile, OutputOptions
from tests.support import ffmpeg_decoder, signals

DEFAULT = LoudnessTarget(-16.0, -1.0)
RATE_HZ = 48_000


def master(path, samples, format_, target, rate=RATE_HZ, **encoder):
    measurement = SignalMeter(rate, 2, path.parent)
    measurement.feed(samples)
    try:
        audio = AudioFile(format_, rate, 2, len(samples), None, 1, **encoder)
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


def quiet_music(rate):
    """Music that is 40 dB quieter, and needs the limiter."""
    return signals.music(rate, 4, seed=7) * np.float32(1e-2)


@pytest.mark.parametrize(
    ("format_", "rate", "encoder", "samples"),
    [
        (FileFormat.OGG_VORBIS, 48_000, {"bit_rate_kbps": 96}, signals.noise(48_000, 4)),
        (FileFormat.OGG_VORBIS, 48_000, {"bit_rate_kbps": 192}, signals.music(48_000, 4)),
        (FileFormat.OGG_VORBIS, 32_000, {"quality": 0.0}, signals.music(32_000, 4)),
        (FileFormat.OGG_OPUS, 8_000, {}, signals.music(8_000, 4)),
        (FileFormat.OGG_OPUS, 8_000, {"bit_rate_kbps": 16}, signals.tones(8_000, [(4, -20)])),
        (FileFormat.OGG_OPUS, 48_000, {"bit_rate_kbps": 24}, signals.noise(48_000, 4)),
        (FileFormat.OGG_OPUS, 24_000, {"bit_rate_kbps": 64}, quiet_music(24_000)),
        (FileFormat.MP3, 44_100, {"bit_rate_kbps": 64}, quiet_music(44_100)),
        (FileFormat.MP3, 8_000, {"bit_rate_kbps": 8}, signals.music(8_000, 4)),
        (FileFormat.M4A_AAC, 44_100, {"bit_rate_kbps": 64}, signals.music(44_100, 4)),
        (FileFormat.M4A_AAC, 32_000, {}, quiet_music(32_000)),
    ],
)
def test_decoded_lossy_file_is_on_target(tmp_path, format_, rate, encoder, samples):
    result = master(tmp_path / "a", samples, format_, DEFAULT, rate, **encoder)
    decoded, decoded_rate = ffmpeg_decoder.decode(tmp_path / "a")
    reference = signals.measured_by_libebur128(decoded, decoded_rate)
    assert reference.integrated_lufs == pytest.approx(-16.0, abs=0.11)
    assert reference.true_peak_dbtp <= -0.9
    assert result.file.loudness.integrated_lufs == pytest.approx(reference.integrated_lufs, abs=0.02)
    assert result.file.peak_db <= -1.0
    assert (result.normalization.target, result.normalization.reason) == (DEFAULT, "")
    assert (result.normalization.shortfall_lu, len(decoded) * rate // decoded_rate) == (0.0, len(samples))


def test_lossy_file_that_cannot_reach_its_target_says_why(tmp_path):
    samples = signals.of_plr(20, RATE_HZ, 4)
    result = master(tmp_path / "a", samples, FileFormat.OGG_OPUS, DEFAULT, bit_rate_kbps=64)
    shortfall_lu = -16.0 - result.file.loudness.integrated_lufs
    assert result.file.peak_db <= -1.0
    assert result.normalization.shortfall_lu == pytest.approx(shortfall_lu)
    assert result.normalization.reason == (
        f"held back {shortfall_lu:.2f} LU below the target: reaching it would need more than 6 dB of limiting, also of "
        "peaks that the encoder adds"
    )


def test_lossy_file_without_target_is_as_loud_as_its_source(tmp_path):
    samples = signals.music(8_000, 4) * np.float32(0.5)
    result = master(tmp_path / "a", samples, FileFormat.OGG_OPUS, LoudnessTarget(None, -1.0), 8_000)
    assert result.file.loudness.integrated_lufs == pytest.approx(result.source.loudness.integrated_lufs, abs=0.1)
    assert result.normalization.gain_db > 0.1
    assert result.normalization.target == LoudnessTarget(None, -1.0)
    assert result.normalization.reason == (
        "the request leaves the level unchanged; the gain makes up for what the encoder changes"
    )


def test_file_over_ceiling_is_encoded_again(tmp_path, monkeypatch):
    samples = signals.music(RATE_HZ, 4)
    target = LoudnessTarget(-14.0, -1.0)
    result = master(tmp_path / "a", samples, FileFormat.MP3, target)
    monkeypatch.setattr(lossy_correction, "MAX_ENCODINGS", 1)
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
    with open_sequential(tmp_path / "a") as file:
        assert result.frames == file.frames == RATE_HZ
