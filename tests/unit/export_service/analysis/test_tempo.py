"""Tempo of rhythms that nobody composed, and of what has none. Music is in test_analyzer.py."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.analysis.features import FeatureExtractor
from export_service.analysis.tempo import tempo

RATE = 32_000
SECONDS = 16


def measure(samples, rate=RATE, hint_bpm=0.0):
    extractor = FeatureExtractor(rate)
    extractor.feed(np.asarray(samples, dtype=np.float32)[:, None])
    features = extractor.finish()
    return tempo(features.onsets, features.onset_rate_hz, hint_bpm)


def struck(times, sound, rate=RATE, seconds=SECONDS):
    """The sound at each of the times (s)."""
    signal = np.zeros(seconds * rate + len(sound))
    for start in (np.asarray(times) * rate).astype(int):
        signal[start : start + len(sound)] += sound
    return signal[: seconds * rate]


def click(rate=RATE):
    time = np.arange(round(0.02 * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * 1000 * time) * np.exp(-time * 250)


def kit():
    """Kick, snare and hat."""
    random, time = np.random.default_rng(3), np.arange(RATE // 5) / RATE
    kick = 0.8 * np.sin(2 * np.pi * (50 * time - 0.5 * np.exp(-40 * time))) * np.exp(-15 * time)
    noise = random.standard_normal(len(time))
    return kick, 0.3 * noise * np.exp(-25 * time), 0.1 * np.diff(noise, append=0.0) * np.exp(-80 * time)


def loop(bpm, swing):
    """Four to the bar, hats on swung eighths, a drummer's inaccuracy of 4 ms."""
    kick, snare, hat = kit()
    beat = 60.0 / bpm
    beats = np.arange(0.01, SECONDS, beat)
    hats = np.sort(np.concatenate([beats, beats + beat * (0.5 + swing / 6)]))
    hats = np.maximum(0.0, hats + np.random.default_rng(4).normal(0, 0.004, len(hats)))
    return struck(beats[::2], kick) + struck(beats[1::2], snare) + struck(hats[hats < SECONDS], hat)


def within(found, bpm, share):
    return found == pytest.approx(bpm, rel=share)


@pytest.mark.parametrize("bpm", [60, 75, 90, 110, 128, 140, 160, 174, 200])
def test_clicks_are_found_to_a_tenth_of_a_per_cent_or_said_as_the_alternative(bpm):
    found = measure(struck(np.arange(0.1, SECONDS, 60 / bpm), click()))
    nearest = min(found.bpm, found.alternative_bpm, key=lambda other: abs(other - bpm))
    assert within(nearest, bpm, 0.001)
    assert found.confidence > 0.6
    assert found.alternative_bpm / found.bpm in (pytest.approx(0.5), pytest.approx(2.0))


@pytest.mark.parametrize("bpm", [90, 110, 128, 150])
@pytest.mark.parametrize("swing", [0.0, 0.5, 1.0], ids=["straight", "half swung", "triplets"])
def test_drums_are_found_at_their_own_tempo_however_they_swing(bpm, swing):
    found = measure(loop(bpm, swing))
    assert within(found.bpm, bpm, 0.005)
    assert found.confidence > 0.9


@pytest.mark.parametrize("bpm", [84, 100, 120])
def test_a_waltz_is_found(bpm):
    kick, snare, hat = kit()
    beats = np.arange(0.01, SECONDS, 60 / bpm)
    drums = struck(beats[::3], kick) + sum(struck(beats[at::3], 0.5 * snare) for at in (1, 2))
    eighths = struck(np.arange(0.01, SECONDS, 30 / bpm), hat)
    assert within(measure(drums + eighths).bpm, bpm, 0.01)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_at_any_sample_rate(rate):
    assert within(measure(struck(np.arange(0.1, SECONDS, 0.5), click(rate), rate), rate).bpm, 120, 0.002)


@pytest.mark.parametrize("gain", [0.003, 0.1, 10.0])
def test_at_any_level(gain):
    assert within(measure(gain * loop(110, 0.0)).bpm, 110, 0.005)


def test_a_hint_decides_between_half_and_double():
    signal = struck(np.arange(0.1, SECONDS, 60 / 87), click())
    assert within(measure(signal).bpm, 87, 0.001)
    assert within(measure(signal, hint_bpm=174).bpm, 174, 0.001)


def test_a_hint_does_not_change_what_is_heard():
    signal = loop(112, 0.0)
    assert within(measure(signal, hint_bpm=120).bpm, 112, 0.005)


def test_the_more_the_tempo_changes_the_less_it_is_believed():
    def ramp(first, last):
        times, now = [], 0.1
        while now < SECONDS:
            times.append(now)
            now += 60 / (first + (last - first) * now / SECONDS)
        found = measure(struck(times, click()))
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
def test_what_has_no_beat_has_no_tempo(signal):
    assert measure(signal) is None


def test_clicks_at_random_are_hardly_believed():
    random = np.random.default_rng(6)
    found = measure(struck(np.sort(random.uniform(0, 59, 180)), click(), seconds=60))
    assert found is None or found.confidence < 0.15


def test_a_single_onset_in_half_a_second_is_no_beat():
    assert tempo(np.eye(1, 25, dtype=np.float32)[0], 50.0) is None
