"""WAV files as they are written and read, also by libsndfile."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile

from dgx_music.errors import DataLoss
from gateway.daw.wav_file import WavWriter, read_samples, read_wav


@pytest.mark.parametrize("channels", [1, 2])
def test_libsndfile_reads_what_is_written(tmp_path, channels):
    samples = np.random.default_rng(1).uniform(-1.0, 1.0, (1001, channels)).astype(np.float32)
    samples[:2] = [[2.0] * channels, [-2.0] * channels]
    path = tmp_path / "x.wav"
    with WavWriter(path, 48_000, channels) as writer:
        writer.write(samples[:500])
        writer.write(samples[500:])
    read, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == 48_000
    assert soundfile.info(path).subtype == "PCM_24"
    np.testing.assert_allclose(read, np.clip(samples, -1.0, 1.0), atol=2**-23)
    info = read_wav(path)
    assert (info.sample_rate_hz, info.channels, info.frames, info.cues) == (48_000, channels, 1001, ())
    np.testing.assert_array_equal(read_samples(path, info), read)


def test_cue_points_are_read_in_order_of_time(tmp_path):
    path = tmp_path / "x.wav"
    soundfile.write(path, np.zeros((100, 1)), 8_000, subtype="PCM_24")
    cues = struct.pack("<I", 2) + b"".join(
        struct.pack("<II4sIII", identifier, frame, b"data", 0, 0, frame) for identifier, frame in ((1, 50), (2, 10))
    )
    labels = b"adtl"
    for identifier, text in ((1, b"Verse\0"), (2, "Intro é\0".encode())):
        labels += struct.pack("<4sII", b"labl", 4 + len(text), identifier) + text + b"\0" * (len(text) % 2)
    with open(path, "ab") as file:
        file.write(struct.pack("<4sI", b"cue ", len(cues)) + cues)
        file.write(struct.pack("<4sI", b"LIST", len(labels)) + labels)
    assert read_wav(path).cues == ((10, "Intro é"), (50, "Verse"))


@pytest.mark.parametrize("content", [b"", b"RIFF\0\0\0\0WAVE", b"fLaC" + bytes(40)])
def test_what_is_no_wav_file_is_rejected(tmp_path, content):
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    with pytest.raises(DataLoss, match=r"x\.wav is"):
        read_wav(path)
