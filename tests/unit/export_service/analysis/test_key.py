"""Keys of synthetic tunes, and signals without a key. For music, see test_analyzer.py."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.analysis.features import FeatureExtractor
from export_service.analysis.key import MAJOR_NAMES, MINOR_NAMES, estimate_key

RATE = 32_000
MAJOR_TUNE = (0, 4, 7, 12, 9, 5, 2, 7, 11, 0, 4, 7, 0)
MINOR_TUNE = (0, 3, 7, 12, 8, 5, 2, 7, 10, 0, 3, 7, 0)


def estimate(samples, rate=RATE):
    extractor = FeatureExtractor(rate)
    extractor.feed(np.asarray(samples, dtype=np.float32)[:, None])
    return estimate_key(extractor.finish().chroma)


def tones(semitones, rate=RATE, seconds=0.5, cents=0.0):
    """One after the other, semitones above middle C, with three harmonics."""
    time = np.arange(round(seconds * rate)) / rate
    frequencies = [261.626 * 2 ** ((semitone + cents / 100) / 12) for semitone in semitones]
    return np.concatenate([sum(0.2 / k * np.sin(2 * np.pi * k * hz * time) for k in (1, 2, 3)) for hz in frequencies])


@pytest.mark.parametrize("tonic", range(12))
def test_key_of_tunes_in_all_keys(tonic):
    assert estimate(tones([tonic + step for step in MAJOR_TUNE])).name == f"{MAJOR_NAMES[tonic]} major"
    assert estimate(tones([tonic + step for step in MINOR_TUNE])).name == f"{MINOR_NAMES[tonic]} minor"


@pytest.mark.parametrize("cents", [-40.0, -20.0, 20.0, 40.0])
def test_key_of_detuned_instrument(cents):
    found = estimate(tones(MINOR_TUNE, cents=cents))
    assert (found.name, found.confidence > 0.8) == ("C minor", True)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 192_000])
def test_key_at_any_sample_rate(rate):
    assert estimate(tones(MAJOR_TUNE, rate), rate).name == "C major"


@pytest.mark.parametrize("gain", [0.003, 10.0])
def test_key_at_any_level(gain):
    assert estimate(gain * tones(MAJOR_TUNE)).name == "C major"


def test_key_of_tune_with_noise():
    tune = tones(MINOR_TUNE)
    hiss = 0.02 * np.random.default_rng(5).standard_normal(len(tune))
    assert estimate(tune + hiss).name == "C minor"


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(0.1 * np.random.default_rng(1).standard_normal(8 * RATE), id="noise"),
        pytest.param(0.3 * np.sin(2 * np.pi * 220 * np.arange(8 * RATE) / RATE), id="one tone"),
        pytest.param(tones(range(12)), id="all semitones"),
        pytest.param(np.zeros(8 * RATE), id="silence"),
        pytest.param(np.full(8 * RATE, 0.5), id="DC"),
        pytest.param(np.ones(1), id="one frame"),
    ],
)
def test_key_of_unpitched_signal_is_none(signal):
    assert estimate(signal) is None


def test_key_of_uniform_chroma_is_none():
    assert estimate_key(np.ones(36)) is None
