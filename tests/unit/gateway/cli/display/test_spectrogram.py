"""The spectrogram of a picture."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.cli.display.spectrogram import LOWEST_HZ, MOST_COLUMNS, ROWS, Samples, Spectrogram

RATE = 32_000


def sine(hertz: float, seconds: float, channels: int = 2, level: float = 1.0) -> Samples:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def of(samples: Samples, piece: int) -> Spectrogram:
    found = Spectrogram(RATE, samples.shape[1], len(samples))
    for start in range(0, len(samples), piece):
        found.feed(samples[start : start + piece])
    return found


@pytest.mark.parametrize("hertz", [100.0, 1000.0, 12_000.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_sine_stands_at_its_frequency_and_level(hertz: float, channels: int) -> None:
    found = of(sine(hertz, 2, channels, level=0.1), 10_000)
    column = found.decibels()[:, found.columns // 2]
    loudest = int(column.argmax())
    bin_rows = found.row_of(hertz + RATE / 2048) - found.row_of(hertz)  # How far apart two of the transform's lie.
    assert abs(loudest - found.row_of(hertz)) <= max(1, bin_rows)
    assert column[loudest] == pytest.approx(-20, abs=1.5)  # Between two of the transform's it is 1.4 dB less.


def test_time_goes_from_left_to_right() -> None:
    silence = np.zeros((RATE, 2), dtype=np.float32)
    found = of(np.concatenate([sine(1000, 1), silence]), 4096)
    row = found.decibels()[int(found.row_of(1000)) :][:2].max(axis=0)
    assert row[: found.columns // 2 - 1].min() > -2
    assert np.isneginf(row[found.columns // 2 + 2 :]).all()


def test_a_spectrogram_is_the_same_however_it_is_fed() -> None:
    noise = np.random.default_rng(1).standard_normal((5 * RATE, 2)).astype(np.float32)
    np.testing.assert_allclose(of(noise, 777).decibels(), of(noise, len(noise)).decibels(), rtol=1e-6)


def test_its_size_is_the_picture_s() -> None:
    short, long = of(sine(440, 1), 50_000), of(sine(440, 60), 50_000)
    assert short.decibels().shape == (ROWS, short.columns)
    assert long.columns == MOST_COLUMNS
    assert of(sine(440, 0.01), 50).decibels().shape == (ROWS, 1), "less than a window"
    assert long.frequencies(np.array([0, ROWS])).tolist() == pytest.approx([LOWEST_HZ, RATE / 2])
