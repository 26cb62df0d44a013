"""Samples and headers of responses."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from gateway.http.pcm_encoding import PcmEncoder, wav_header


def test_samples_are_quantized_and_clipped() -> None:
    samples = np.array([[0.0], [0.5], [-1.0], [2.0], [-2.0]], np.float32)
    assert np.frombuffer(PcmEncoder(8000, 1).encode(samples), "<i2").tolist() == [0, 16384, -32767, 32767, -32767]


def test_channels_are_mixed_down_or_copied() -> None:
    stereo = np.array([[0.5, 0.25]], np.float32)
    assert np.frombuffer(PcmEncoder(8000, 2, channels=1).encode(stereo), "<i2").tolist() == [12288]
    assert np.frombuffer(PcmEncoder(8000, 1, channels=2).encode(stereo[:, :1]), "<i2").tolist() == [16384, 16384]


def test_resampled_chunks_are_the_whole_resampled() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(32_000) / 32_000, dtype=np.float32)[:, None] * np.float32(0.5)
    encoder = PcmEncoder(32_000, 1, sample_rate=24_000)
    parts = [encoder.encode(tone[start : start + 1000]) for start in range(0, len(tone), 1000)]
    received = np.frombuffer(b"".join([*parts, encoder.finish()]), "<i2")
    expected = np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000) * 0.5 * 32767
    assert len(received) == 24_000
    assert np.abs(received[500:-500] - expected[500:-500]).max() < 40


def test_header_makes_a_wav_file_with_its_comment() -> None:
    samples = np.arange(10, dtype="<i2")
    with soundfile.SoundFile(io.BytesIO(wav_header(44_100, 2, 5, "odd") + samples.tobytes())) as file:
        assert (file.samplerate, file.channels, file.frames, file.comment) == (44_100, 2, 5, "odd")
        assert np.array_equal(file.read(dtype="int16").ravel(), samples)


def test_header_of_unknown_length_is_read_to_the_end() -> None:
    samples = np.arange(10, dtype="<i2")
    with soundfile.SoundFile(io.BytesIO(wav_header(8000, 1, None, "") + samples.tobytes())) as file:
        assert np.array_equal(file.read(dtype="int16"), samples)
