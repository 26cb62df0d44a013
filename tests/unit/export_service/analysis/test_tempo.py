"""Tempo of synthetic rhythms, and signals without a tempo. For music, see test_analyzer.py."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.analysis.features import FeatureExtractor
from export_service.analysis.tempo import estimate_tempo

RATE = 32_000
SECONDS = 16


def estimate(samples, rate=RATE, hint_bpm=0.0):
    extractor = FeatureExtractor(rate)
    extractor.feed(np.asarray(samples, dtype=np.float32)[:, None])
    features = extractor.finish()
    return estimate_tempo(features.onsets, features.onset_rate_hz, hint_bpm)


def place_at(times, sound, rate=RATE, seconds=SECONDS):
    """The sound at each of the times (s)."""
    signal = np.zeros(seconds * rate + len(sound))
    for start in (np.asarray(times) * rate).astype(int):
        signal[start : start + len(sound)] += sound
    return signal[: seconds * rate]


def click(rate=RATE):
    time = np.arange(round(0.02 * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * 1000 * time) * np.exp(-time * 250)


def drum_kit():
    """Kick, snare and hat."""
    random, time = np.random.default_rng(3), np.arange(RATE // 5) / RATE
    kick = 0.8 * np.sin(2 * np.pi * (50 * time - 0.5 * np.exp(-40 * time))) * np.exp(-15 * time)
    noise = random.standard_normal(len(time))
    return kick, 0.3 * noise * np.exp(-25 * time), 0.1 * np.diff(noise, append=0.0) * np.exp(-80 * time)


def drum_loop(bpm, swing):
    """Four to the bar, hats on swung eighths, a drummer's inaccuracy of 4 ms."""
    kick, snare, hat = drum_kit()
    beat = 60.0 / bpm
    beats = np.arange(0.01, SECONDS, beat)
    hats = np.sort(np.concatenate([beats, beats + beat * (0.5 + swing / 6)]))
    hats = np.maximum(0.0, hats + np.random.default_rng(4).normal(0, 0.004, len(hats)))
    return place_at(beats[::2], kick) + place_at(beats[1::2], snare) + place_at(hats[hats < SECONDS], hat)


def is_within(found, bpm, share):
    return found == pytest.approx(bpm, rel=share)


@pytest.mark.parametrize("bpm", [60, 75, 90, 110, 128, 140, 160, 174, 200])
def test_tempo_or_alternative_of_clicks_is_within_a_tenth_of_a_per_cent(bpm):
    found = estimate(place_at(np.arange(0.1, SECONDS, 60 / bpm), click()))
    nearest = min(found.bpm, found.alternative_bpm, key=lambda other: abs(other - bpm))
    assert is_within(nearest, bpm, 0.001)
    assert found.confidence > 0.6
    assert found.alternative_bpm / found.bpm in (pytest.approx(0.5), pytest.approx(2.0))


@pytest.mark.parametrize("bpm", [90, 110, 128, 150])
@pytest.mark.parametrize("swing", [0.0, 0.5, 1.0], ids=["straight", "half swung", "triplets"])
def test_tempo_of_drums_with_any_swing(bpm, swing):
    found = estimate(drum_loop(bpm, swing))
    assert is_within(found.bpm, bpm, 0.005)
    assert found.confidence > 0.9


@pytest.mark.parametrize("bpm", [84, 100, 120])
def test_tempo_of_waltz(bpm):
    kick, snare, hat = drum_kit()
    beats = np.arange(0.01, SECONDS, 60 / bpm)
    drums = place_at(beats[::3], kick) + sum(place_at(beats[at::3], 0.5 * snare) for at in (1, 2))
    eighths = place_at(np.arange(0.01, SECONDS, 30 / bpm), hat)
    assert is_within(estimate(drums + eighths).bpm, bpm, 0.01)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_tempo_at_any_sample_rate(rate):
    assert is_within(estimate(place_at(np.arange(0.1, SECONDS, 0.5), click(rate), rate), rate).bpm, 120, 0.002)


@pytest.mark.parametrize("gain", [0.003, 0.1, 10.0])
def test_tempo_at_any_level(gain):
    assert is_within(estimate(gain * drum_loop(110, 0.0)).bpm, 110, 0.005)


def test_hint_decides_between_half_and_double_tempo():
    signal = place_at(np.arange(0.1, SECONDS, 60 / 87), click())
    assert is_within(estimate(signal).bpm, 87, 0.001)
    assert is_within(estimate(signal, hint_bpm=174).bpm, 174, 0.001)


def test_hint_does_not_change_a_clear_tempo():
    signal = drum_loop(112, 0.0)
    assert is_within(estimate(signal, hint_bpm=120).bpm, 112, 0.005)


def test_confidence_falls_as_the_tempo_drifts():
    def ramp(first, last):
        times, now = [], 0.1
        while now < SECONDS:
            times.append(now)
            now += 60 / (first + (last - first) * now / SECONDS)
        found = estimate(place_at(times, click()))
        return found.confidence if found else 0.0

    confidences = [ramp(119, 121), ramp(110, 130), ramp(80, 160)]
    assert confidences == sorted(confidences, reverse=True)
    assert confidences[1] < 0.5
    assert confidences[2] < 0.2


def sines(*frequencies):
    time = np.arange(SECONDS * RATE) / RATE
    return 0.15 * sum(np.sin(2 * np.pi * hz * time) for hz in frequencies)


@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(sines(220.0), id="tone"),
        pytest.param(sines(110.0, 165.0, 220.5, 277.0), id="drone that beats"),
        pytest.param(0.1 * np.random.default_rng(1).standard_normal(SECONDS * RATE), id="noise"),
        pytest.param(0.1 * np.random.default_rng(2).standard_normal(5 * RATE), id="five seconds of noise"),
        pytest.param(np.zeros(SECONDS * RATE), id="silence"),
        pytest.param(np.full(SECONDS * RATE, 0.5), id="DC"),
        pytest.param(0.1 * np.random.default_rng(1).standard_normal(RATE // 10), id="100 ms"),
        pytest.param(np.ones(1), id="one frame"),
        pytest.param(click(), id="one click"),
    ],
)
def test_tempo_of_signal_without_beat_is_none(signal):
    assert estimate(signal) is None


def test_confidence_of_random_clicks_is_low():
    random = np.random.default_rng(6)
    found = estimate(place_at(np.sort(random.uniform(0, 59, 180)), click(), seconds=60))
    assert found is None or found.confidence < 0.15


def test_tempo_of_single_onset_is_none():
    assert estimate_tempo(np.eye(1, 25, dtype=np.float32)[0], 50.0) is None
