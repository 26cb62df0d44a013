"""Tempo at any length, tempo and sample rate: every envelope gets an answer, and a clear beat the right one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export_service.analysis.analyzer import analyze
from export_service.analysis.features import ONSET_HOP, FeatureExtractor, Features
from export_service.analysis.key import estimate_key
from export_service.analysis.tempo import MAX_BPM, MAX_LAG_SECONDS, MIN_BPM, SECTION_FRAMES, estimate_tempo

RATES_HZ = 8_000, 11_025, 16_000, 19_999, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000
CLEAR_BEATS = 10
"""More than a piece needs for its tempo to be clear."""


def onset_rate(sample_rate_hz: int) -> float:
    return FeatureExtractor(sample_rate_hz).finish().onset_rate_hz


ONSET_RATES_HZ = {rate: onset_rate(rate) for rate in RATES_HZ}


def beats(frames: int, rate_hz: float, bpm: float) -> np.ndarray:
    """Returns an onset envelope with a peak, 20 ms wide, at each beat."""
    times = np.arange(frames) / rate_hz
    since = (times * bpm / 60) % 1 * 60 / bpm
    return np.exp(-0.5 * ((since - 0.03) / 0.02) ** 2).astype(np.float32)


def octaves_off(found_bpm: float, bpm: float) -> float:
    """Returns the distance to the nearest of the tempi at which listeners may tap: bpm, its halves and doubles."""
    octaves = math.log2(found_bpm / bpm)
    return abs(octaves - round(octaves))


def check(frames: int, sample_rate_hz: int, bpm: float) -> None:
    rate_hz = ONSET_RATES_HZ[sample_rate_hz]
    onsets = beats(frames, rate_hz, bpm)
    features = Features(rate_hz, onsets, np.zeros(36), frames / rate_hz)
    free, guided = analyze(features), analyze(features, bpm)
    found, hinted = free.tempo, guided.tempo
    assert not free.not_measured + guided.not_measured
    if frames / rate_hz < max(CLEAR_BEATS * 60 / bpm, 5.0):
        return
    assert found is not None
    assert hinted is not None
    assert octaves_off(found.bpm, bpm) < 0.01
    assert hinted.bpm == pytest.approx(bpm, rel=0.01)
    for tempo in (found, hinted):
        assert MIN_BPM <= tempo.bpm <= MAX_BPM
        assert MIN_BPM <= tempo.alternative_bpm <= MAX_BPM
        assert 0.1 <= tempo.confidence <= 1.0


@given(
    seconds=st.floats(0.1, 600.0),
    sample_rate_hz=st.sampled_from(RATES_HZ),
    bpm=st.floats(MIN_BPM, MAX_BPM),
)
@example(seconds=590.0, sample_rate_hz=32_000, bpm=130.0)
@example(seconds=600.0, sample_rate_hz=192_000, bpm=MAX_BPM)
@example(seconds=0.1, sample_rate_hz=8_000, bpm=MIN_BPM)
@example(seconds=3600.0, sample_rate_hz=44_100, bpm=97.0)
def test_any_length_tempo_and_rate(seconds, sample_rate_hz, bpm):
    check(int(seconds * ONSET_RATES_HZ[sample_rate_hz]), sample_rate_hz, bpm)


@pytest.mark.parametrize("sections", [1, 2])
def test_lengths_around_a_section(sections):
    """The last section has from no frame to more frames than there are lags."""
    lags = int(MAX_LAG_SECONDS * ONSET_RATES_HZ[32_000]) + 2
    rest = [-1, 0, 1, 2, 3, 7, 100, lags // 2, lags - 2, lags - 1, lags, lags + 1, 2 * lags, 2 * lags + 1]
    for frames in (sections * SECTION_FRAMES + more for more in rest):
        check(frames, 32_000, 130.0)


def test_lengths_around_the_longest_lag():
    lags = int(MAX_LAG_SECONDS * ONSET_RATES_HZ[32_000]) + 2
    for frames in [*range(1, 40), *(lags + more for more in range(-3, 4))]:
        check(frames, 32_000, 130.0)


DENORMAL, HUGE = 1e-42, 3e38
ENVELOPES = {
    "silence": lambda n: np.zeros(n),
    "constant": lambda n: np.ones(n),
    "one impulse": lambda n: np.eye(1, n, n // 2)[0],
    "first frame only": lambda n: np.eye(1, n)[0],
    "last frame only": lambda n: np.eye(1, n, n - 1)[0],
    "noise": lambda n: np.random.default_rng(1).random(n),
    "ramp": lambda n: np.arange(n) / n,
    "denormal beats": lambda n: DENORMAL * beats(n, 55.0, 120.0),
    "huge beats": lambda n: HUGE * beats(n, 55.0, 120.0),
    "denormal constant": lambda n: np.full(n, DENORMAL),
    "huge constant": lambda n: np.full(n, HUGE),
    "alternating": lambda n: np.arange(n) % 2,
}


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES.keys())
@pytest.mark.parametrize("hint_bpm", [0.0, 5e-324, 0.1, 120.0, 1000.0])
def test_degenerate_envelope_gets_an_answer_without_a_warning(envelope, hint_bpm):
    for frames in (1, 2, 20, 277, 3000, SECTION_FRAMES + 5):
        found = estimate_tempo(envelope(frames).astype(np.float32), 55.0, hint_bpm)
        assert found is None or math.isfinite(found.bpm + found.alternative_bpm + found.confidence)


@pytest.mark.parametrize("size", [5e-324, 1e-200, 1.0, 1e308])
def test_key_of_a_chroma_of_any_size(size):
    chroma = np.zeros(36)
    chroma[[1, 13, 22]] = size  # C, E and G.
    found = estimate_key(chroma)
    assert found is not None
    assert found.name == "C major"
    assert estimate_key(np.full(36, size)) is None


SIGNALS = {
    "silence": lambda n, random: np.zeros(n),
    "one impulse": lambda n, random: np.eye(1, n, n // 2)[0],
    "constant": lambda n, random: np.ones(n),
    "full-scale noise": lambda n, random: random.uniform(-1, 1, n),
    "denormals": lambda n, random: DENORMAL * random.uniform(-1, 1, n),
    "largest floats": lambda n, random: np.where(random.random(n) < 0.5, 1, -1) * float(np.finfo(np.float32).max),
    "Nyquist": lambda n, random: np.resize([1.0, -1.0], n),
}


@pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS.keys())
@pytest.mark.parametrize("sample_rate_hz", [8_000, 19_999, 44_100])
def test_features_of_any_signal_are_finite(signal, sample_rate_hz):
    random = np.random.default_rng(1)
    for frames in (1, ONSET_HOP, sample_rate_hz // 10, 6 * sample_rate_hz):
        extractor = FeatureExtractor(sample_rate_hz)
        extractor.feed(np.repeat(signal(frames, random).astype(np.float32)[:, None], 2, axis=1))
        features = extractor.finish()
        assert np.isfinite(features.onsets).all()
        assert np.isfinite(features.chroma).all()
        assert not analyze(features).not_measured


@pytest.mark.parametrize(("sample_rate_hz", "seconds"), [(32_000, 302.0), (8_000, 393.3), (44_100, 11.9)])
def test_beat_in_audio_of_an_awkward_length(sample_rate_hz, seconds):
    frames, period = round(seconds * sample_rate_hz), round(sample_rate_hz * 60 / 130)
    click = np.zeros(period, dtype=np.float32)
    click[: sample_rate_hz // 50] = 0.5 * np.sin(0.5 * np.arange(sample_rate_hz // 50))
    extractor = FeatureExtractor(sample_rate_hz)
    extractor.feed(np.resize(click, frames)[:, None])
    found = analyze(extractor.finish()).tempo
    assert found is not None
    assert found.bpm == pytest.approx(130, rel=0.005)
