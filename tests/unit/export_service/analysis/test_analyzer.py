"""Tempo and key of music with known tempo and key, and the features that they are estimated from."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from export_service.analysis.analyzer import MIN_ANALYSIS_SECONDS, Analysis, analyze
from export_service.analysis.features import FeatureExtractor
from tests.support.sketch_clips import RATE_HZ, clips, is_near_key

CLIPS = list(clips(draw=7))
"""132: each genre twelve times; tempi from 60 to 180."""
SECONDS = 16.0


def extract_features(samples, rate=RATE_HZ, sizes=(32_768,)):
    extractor = FeatureExtractor(rate)
    start, number = 0, 0
    while start < len(samples):
        size = sizes[number % len(sizes)]
        extractor.feed(samples[start : start + size])
        start, number = start + size, number + 1
    return extractor.finish()


@pytest.fixture(scope="module", params=[11, pytest.param(5, marks=pytest.mark.slow)], ids=["12 clips", "27 clips"])
def clip_features(request):
    """(clip, its features) of some clips: of each genre one, or two or three."""
    return [(clip, extract_features(clip.samples(SECONDS))) for clip in CLIPS[:: request.param]]


def test_tempo_or_its_alternative_is_within_two_per_cent(clip_features):
    misses = []
    for clip, features in clip_features:
        found = analyze(features).tempo
        if found is None and clip.genre == "ambient":  # It has no beat.
            continue
        candidates = (found.bpm, found.alternative_bpm) if found else ()
        if not any(bpm == pytest.approx(clip.bpm, rel=0.02) for bpm in candidates):
            misses.append((clip.prompt, found))
    assert len(misses) <= 1, misses


def test_tempo_with_hint_matches_the_prompt(clip_features):
    misses = []
    for clip, features in clip_features:
        found = analyze(features, clip.bpm).tempo
        if found is None and clip.genre == "ambient":  # It has no beat.
            continue
        if found is None or found.bpm != pytest.approx(clip.bpm, rel=0.02):
            misses.append((clip.prompt, found))
    assert len(misses) <= 2, misses


def test_key_is_correct_or_closely_related(clip_features):
    found = [(clip.key, analyze(features).key) for clip, features in clip_features]
    wrong = [(known, key) for known, key in found if key is None or not is_near_key(key.name, known)]
    exact = [known for known, key in found if key and is_near_key(key.name, known, exactly=True)]
    assert len(wrong) <= 2, wrong
    assert len(exact) >= 0.8 * len(found)


def test_features_do_not_depend_on_chunk_sizes():
    samples = CLIPS[15].samples(7.3)
    whole = extract_features(samples, sizes=(len(samples),))
    for sizes in [(1_000,), (1, 77, 4_096), (32_768,), (36_864, 36_865)]:
        cut = extract_features(samples, sizes=sizes)
        assert cut.seconds == whole.seconds == 7.3
        np.testing.assert_array_equal(cut.onsets, whole.onsets)
        np.testing.assert_array_equal(cut.chroma, whole.chroma)


def test_stereo_features_equal_those_of_the_channel_mean():
    samples = CLIPS[0].samples(6.0)
    stereo, mono = extract_features(samples), extract_features((samples[:, :1] + samples[:, 1:]) / 2)
    np.testing.assert_array_equal(stereo.onsets, mono.onsets)
    np.testing.assert_array_equal(stereo.chroma, mono.chroma)


def test_decimation_does_not_alias():
    time = np.arange(8 * 48_000) / 48_000
    audible = extract_features(0.1 * np.sin(2 * np.pi * 440.0 * time)[:, None].astype(np.float32), 48_000)
    # At 12 kHz this would be heard as 440 Hz.
    folded = extract_features(0.1 * np.sin(2 * np.pi * 11_560.0 * time)[:, None].astype(np.float32), 48_000)
    assert folded.chroma.max() < 0.05 * audible.chroma.max()


def test_analyze_short_audio_returns_no_analysis():
    samples = CLIPS[15].samples(MIN_ANALYSIS_SECONDS)
    assert analyze(extract_features(samples[:-1])) == Analysis(None, None)
    assert analyze(extract_features(samples)).key is not None
    assert analyze(FeatureExtractor(RATE_HZ).finish()) == Analysis(None, None)


def test_feature_memory_grows_slowly():
    block = CLIPS[15].samples(1.0)
    extractor = FeatureExtractor(RATE_HZ)
    extractor.feed(block)
    tracemalloc.start()
    kept = []
    for _ in range(2):  # The first half has allocations that happen once, such as those of a coverage measurement.
        for _ in range(300):
            extractor.feed(block)
        kept.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert kept[1] - kept[0] < 1_500_000 / 12  # 1.5 MB an hour.
