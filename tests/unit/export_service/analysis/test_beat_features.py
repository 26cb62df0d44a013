"""Onsets and chroma of sounds at known times and pitches."""

from __future__ import annotations

import numpy as np
import pytest

from export_service.analysis.beat_features import BeatFeatureExtractor
from tests.support.click_tracks import click_track


def extract(samples, rate_hz, sizes=(65_536,)):
    extractor, start, number = BeatFeatureExtractor(rate_hz), 0, 0
    while start < len(samples):
        size = sizes[number % len(sizes)]
        extractor.feed(samples[start : start + size])
        start, number = start + size, number + 1
    return extractor.finish()


@pytest.mark.parametrize("rate_hz", [8_000, 19_999, 32_000, 44_100, 96_000, 192_000])
def test_onsets_are_where_sounds_begin(rate_hz):
    times = 1.0 + np.arange(8) * 1.037
    features = extract(click_track(times, 10.0, rate_hz), rate_hz)
    for time in times:
        start = int((time - 0.2) * features.rate_hz)
        peak = start + int(features.onsets[start : start + int(0.4 * features.rate_hz)].argmax())
        assert features.first_onset_seconds + peak / features.rate_hz == pytest.approx(time, abs=0.009)


def test_bass_onsets_are_those_of_low_sounds():
    features = extract(click_track(np.arange(1.0, 9.0), 10.0, 32_000), 32_000)
    seconds = features.first_onset_seconds + np.arange(len(features.bass)) / features.rate_hz
    low, high = (features.bass[np.abs(seconds - time) < 0.03].max() for time in (5.0, 6.0))
    assert low > 1.5 * high


def test_chroma_shows_the_pitch_at_each_time():
    rate_hz = 32_000
    time = np.arange(4 * rate_hz) / rate_hz
    hz = np.where(time < 2.0, 261.63, 392.0)  # C, then G.
    tone = 0.3 * np.sin(2 * np.pi * np.cumsum(hz) / rate_hz)
    features = extract(tone.astype(np.float32)[:, None], rate_hz)
    assert set(features.chroma[20:30].argmax(axis=1)) == {0}
    assert set(features.chroma[55:75].argmax(axis=1)) == {7}


def test_features_do_not_depend_on_chunk_sizes():
    samples = click_track(np.arange(0.1, 7.0, 0.7), 7.3, 44_100)
    whole = extract(samples, 44_100, (len(samples),))
    assert len(whole.onsets) == int(np.ceil(7.3 * whole.rate_hz))
    for sizes in ((1_000,), (1, 77, 4_096), (36_864, 36_865)):
        cut = extract(samples, 44_100, sizes)
        assert cut.seconds == whole.seconds == 7.3
        for name in ("onsets", "bass", "chroma"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))
