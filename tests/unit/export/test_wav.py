"""Files as other programs read them."""

from __future__ import annotations

import errno
import os
import resource
import wave

import numpy as np
import pytest
import soundfile

from export_service.wav import Encoding, container, quantiser, write_wav

TAGS = {"title": "house, C minor", "artist": "sketch 1 (AI)", "comment": "AI-generated music; …", "genre": "house"}


def written(path, samples, encoding=Encoding.PCM_24, gain_db=0.0, seed=7, sizes=(10_000,), rate=32_000):
    blocks, start = [], 0
    while start < len(samples):
        for size in sizes:
            blocks.append(samples[start : start + size])
            start += size
    write_wav(
        path,
        blocks,
        frames=len(samples),
        channels=samples.shape[1],
        sample_rate_hz=rate,
        encoding=encoding,
        gain_db=gain_db,
        tags=TAGS,
        dither_seed=seed,
    )
    return path


@pytest.mark.parametrize("channels", [1, 2])
def test_pcm_24_is_rounded_to_the_nearest_step(tmp_path, signals, channels):
    samples = signals.music(32_000, 1, channels)
    path = written(tmp_path / "a.wav", samples, gain_db=-3.7)
    read, rate = soundfile.read(path, dtype="int32", always_2d=True)
    assert rate == 32_000
    expected = np.rint(samples.astype(np.float64) * 10 ** (-3.7 / 20) * 2**23).astype(np.int32) << 8
    np.testing.assert_array_equal(read, expected)


def test_float_keeps_samples_as_they_are(tmp_path, signals):
    samples = signals.music(32_000, 1) * np.float32(3)
    read, _ = soundfile.read(written(tmp_path / "a.wav", samples, Encoding.FLOAT), dtype="float32")
    np.testing.assert_array_equal(read, samples)


def test_pcm_16_has_triangular_dither():
    samples = np.full((200_000, 2), 0.25 / 2**15, dtype=np.float32)
    steps = quantiser(Encoding.PCM_16, 0.0, 1)(samples) >> 16
    # The mean keeps what is below one step; the error's variance is 1/4 for any level, as TPDF promises.
    assert steps.mean() == pytest.approx(0.25, abs=0.005)
    assert (steps - 0.25).var() == pytest.approx(0.25, abs=0.005)
    assert set(np.unique(steps)) <= {-1, 0, 1}
    assert abs(np.corrcoef(steps.T)[0, 1]) < 0.01


def test_dither_does_not_depend_on_the_blocks(tmp_path, signals):
    samples = signals.music(32_000, 1)
    one = written(tmp_path / "a.wav", samples, Encoding.PCM_16)
    other = written(tmp_path / "b.wav", samples, Encoding.PCM_16, sizes=(1, 4_001, 77))
    assert one.read_bytes() == other.read_bytes()
    assert written(tmp_path / "c.wav", samples, Encoding.PCM_16, seed=8).read_bytes() != one.read_bytes()


@pytest.mark.parametrize("encoding", [Encoding.PCM_24, Encoding.PCM_16])
def test_the_same_byte_for_byte(tmp_path, signals, encoding, monkeypatch):
    samples = signals.music(32_000, 1)
    one = written(tmp_path / "a.wav", samples, encoding)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert written(tmp_path / "b.wav", samples, encoding).read_bytes() == one.read_bytes()


@pytest.mark.parametrize("encoding", [Encoding.PCM_24, Encoding.PCM_16])
def test_what_passes_full_scale_is_clipped_not_wrapped(tmp_path, encoding):
    samples = np.array([[1.5, -1.5]] * 100, dtype=np.float32)
    read, _ = soundfile.read(written(tmp_path / "a.wav", samples, encoding))
    assert read[:, 0].min() > 0.999
    assert (read[:, 1] == -1).all()


def test_tags_are_read_by_soundfile(tmp_path, signals):
    with soundfile.SoundFile(written(tmp_path / "a.wav", signals.music(32_000, 0.1))) as file:
        assert {name: getattr(file, name) for name in TAGS} == TAGS
        assert file.date == ""


@pytest.mark.parametrize(("encoding", "width"), [(Encoding.PCM_24, 3), (Encoding.PCM_16, 2)])
def test_pythons_own_reader_opens_it(tmp_path, signals, encoding, width):
    samples = signals.music(44_100, 0.5)
    path = written(tmp_path / "a.wav", samples, encoding, rate=44_100)
    if encoding is Encoding.PCM_24:  # Two channels of 24 bits are WAVE_FORMAT_EXTENSIBLE, which wave reads from 3.12.
        assert soundfile.info(path).frames == len(samples)
    try:
        with wave.open(str(path)) as file:
            found = (file.getnframes(), file.getframerate(), file.getnchannels(), file.getsampwidth())
    except wave.Error as error:
        pytest.fail(str(error))
    assert found == (len(samples), 44_100, 2, width)


def test_an_existing_part_is_never_written_over(tmp_path, signals):
    (tmp_path / "a.wav").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        written(tmp_path / "a.wav", signals.music(32_000, 0.1))
    assert (tmp_path / "a.wav").read_bytes() == b"precious"


def test_the_disks_own_word_for_why_it_refused(tmp_path, signals):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    samples = signals.music(32_000, 30)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, limits[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            written(tmp_path / "a.wav", samples)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_tag_or_block_that_soundfile_refuses_is_not_taken_for_the_disk(tmp_path):
    with pytest.raises(ValueError, match="channels"):
        write_wav(
            tmp_path / "a.wav",
            [np.zeros((10, 2), dtype=np.float32)],
            frames=10,
            channels=1,
            sample_rate_hz=32_000,
            encoding=Encoding.PCM_24,
            gain_db=0,
            tags={},
            dither_seed=0,
        )
    with pytest.raises(soundfile.LibsndfileError):
        write_wav(
            tmp_path / "b.wav",
            [],
            frames=0,
            channels=0,
            sample_rate_hz=32_000,
            encoding=Encoding.PCM_24,
            gain_db=0,
            tags={},
            dither_seed=0,
        )


@pytest.mark.parametrize(
    ("frames", "encoding", "expected"),
    [
        (10, Encoding.PCM_24, "WAV"),
        (700_000_000, Encoding.PCM_24, "WAV"),
        (720_000_000, Encoding.PCM_24, "RF64"),
        (720_000_000, Encoding.PCM_16, "WAV"),
    ],
)
def test_beyond_4_gib_it_is_rf64(frames, encoding, expected):
    assert container(frames, 2, encoding) == expected
