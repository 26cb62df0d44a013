"""The spectrogram of a picture."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.cli.display.spectrogram import MAX_COLUMNS, MIN_HZ, ROWS, Samples, Spectrogram

RATE = 32_000


def sine(hertz: float, seconds: float, channels: int = 2, level: float = 1.0) -> Samples:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    return np.repeat(wave[:, None], channels, axis=1).astype(np.float32)


def spectrogram_of(samples: Samples, piece: int) -> Spectrogram:
    spectrogram = Spectrogram(RATE, samples.shape[1], len(samples))
    for start in range(0, len(samples), piece):
        spectrogram.feed(samples[start : start + piece])
    return spectrogram


@pytest.mark.parametrize("hertz", [100.0, 1000.0, 12_000.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_sine_appears_at_its_frequency_and_level(hertz: float, channels: int) -> None:
    spectrogram = spectrogram_of(sine(hertz, 2, channels, level=0.1), 10_000)
    column = spectrogram.decibels()[:, spectrogram.columns // 2]
    loudest = int(column.argmax())
    bin_rows = spectrogram.row_at(hertz + RATE / 2048) - spectrogram.row_at(hertz)  # Distance of two FFT bins.
    assert abs(loudest - spectrogram.row_at(hertz)) <= max(1, bin_rows)
    assert column[loudest] == pytest.approx(-20, abs=1.5)  # Scalloping between two bins costs 1.4 dB.


def test_time_runs_from_left_to_right() -> None:
    silence = np.zeros((RATE, 2), dtype=np.float32)
    spectrogram = spectrogram_of(np.concatenate([sine(1000, 1), silence]), 4096)
    row = spectrogram.decibels()[int(spectrogram.row_at(1000)) :][:2].max(axis=0)
    assert row[: spectrogram.columns // 2 - 1].min() > -2
    assert np.isneginf(row[spectrogram.columns // 2 + 2 :]).all()


def test_result_is_independent_of_block_size() -> None:
    noise = np.random.default_rng(1).standard_normal((5 * RATE, 2)).astype(np.float32)
    np.testing.assert_allclose(
        spectrogram_of(noise, 777).decibels(), spectrogram_of(noise, len(noise)).decibels(), rtol=1e-6
    )


def test_size_is_bounded_by_picture() -> None:
    short, long = spectrogram_of(sine(440, 1), 50_000), spectrogram_of(sine(440, 60), 50_000)
    assert short.decibels().shape == (ROWS, short.columns)
    assert long.columns == MAX_COLUMNS
    assert spectrogram_of(sine(440, 0.01), 50).decibels().shape == (ROWS, 1), "less than a window"
    assert long.row_frequencies(np.array([0, ROWS])).tolist() == pytest.approx([MIN_HZ, RATE / 2])
