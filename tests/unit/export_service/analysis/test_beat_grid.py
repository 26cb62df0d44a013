"""Beats of music whose beats are known, of clicks at any tempo, and of sounds that have none."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from export_service.analysis.beat_features import BeatFeatureExtractor
from export_service.analysis.beat_grid import NO_BEATS, find_beat_grid
from generation_service.models.base import GenerationParameters
from generation_service.models.sketch import Sketch
from generation_service.models.sketch.composition.genres import STYLES
from tests.support.click_tracks import click_track, drifting_beats
from tests.support.sketch_clips import RATE_HZ, Clip, clips

SECONDS = 24.0
CLICK_RATE_HZ = 16_000


def find_beats(samples, rate_hz, expected_bpm=0.0):
    extractor = BeatFeatureExtractor(rate_hz)
    for start in range(0, len(samples), 65_536):
        extractor.feed(samples[start : start + 65_536])
    return find_beat_grid(extractor.finish(), expected_bpm)


def share_near(found, expected, tolerance=0.02):
    """The share of the expected times that have a found one near them."""
    return np.mean([np.abs(np.array(found) - time).min() <= tolerance for time in expected]) if found else 0.0


def downbeats(grid):
    return grid.beats[grid.first_downbeat :: grid.beats_per_bar]


def check_clips(chosen, cuts):
    """Returns (prompt, share of the beats within 20 ms, share of the bars, the grid) of each clip, which is cut off at
    its beginning so that it does not begin with a bar.
    """
    results = []
    for clip, cut in zip(chosen, cuts, strict=True):
        samples = clip.samples(SECONDS + 3.0)[round(cut * RATE_HZ) :][: round(SECONDS * RATE_HZ)]
        grid = find_beats(samples, RATE_HZ, clip.bpm)
        times = np.arange(200) * 60.0 / clip.bpm - cut
        inside = (times >= 0.0) & (times < SECONDS - 3.0)
        bars = times[::4][inside[::4]]
        bar_share = share_near(downbeats(grid), bars) if grid.beats else 0.0
        results.append((clip.prompt, share_near(grid.beats, times[inside]), bar_share, grid))
    return results


@pytest.mark.slow
def test_beats_and_bars_of_music_are_within_20_ms():
    clip = next(clip for clip in clips(draw=11) if (clip.genre, clip.bpm) == ("house", 114.0))
    ((_, beats, bars, grid),) = check_clips([clip], [0.71])
    assert (beats, bars) == (1.0, 1.0)
    assert grid.downbeat_confidence > 0.3


@pytest.mark.slow
def test_beats_of_music_at_any_tempo():
    """Beats within 20 ms in at least 95 % of the pieces that have a beat, and bars right in at least 95 % of those that
    are sure of them, with a confidence of 0.5 or more. A listener taps no beats in most ambient music.
    """
    random = np.random.default_rng(3)
    chosen = [clip for number, clip in enumerate(clips(draw=8)) if number % 2 and clip.genre != "ambient"]
    results = check_clips(chosen, random.random(len(chosen)) * 3.0)
    found = [result for result in results if result[3].beats]
    assert len(found) >= 0.95 * len(results)
    assert np.mean([beats >= 0.95 for _, beats, _, _ in found]) >= 0.95
    sure = [bars >= 0.95 for _, _, bars, grid in found if grid.downbeat_confidence >= 0.5]
    assert len(sure) >= 0.4 * len(found)
    assert np.mean(sure) >= 0.95


@pytest.mark.slow
def test_beats_of_music_in_all_genres():
    """Where the offbeat is as strong as the beat, as in reggae, bossa nova, funk and swing, beats may be on it; then
    they are not sure, so that no take is stretched by them.
    """
    random = np.random.default_rng(5)
    chosen = []
    for seed in (1, 2, 3):
        for genre in sorted(STYLES):
            model = Sketch()
            state = model.prefill(GenerationParameters(prompt=genre, frames=RATE_HZ, seed=seed))
            assert state.metadata["time_signature"] == "4/4"
            bpm, key = state.metadata["bpm"], state.metadata["key"]
            chosen.append(Clip(genre, genre, float(bpm), str(key), seed))
    results = check_clips(chosen, random.random(len(chosen)) * 3.0)
    found = [result for result in results if result[3].beats]
    assert {prompt for prompt, *_ in results} - {prompt for prompt, *_ in found} <= {"ambient"}
    assert np.mean([beats >= 0.95 for _, beats, _, _ in found]) >= 0.95
    sure_beats = [beats >= 0.95 for _, beats, _, grid in found if grid.beat_confidence >= 0.5]
    assert len(sure_beats) >= 0.8 * len(found)
    assert np.mean(sure_beats) >= 0.98
    sure = [bars >= 0.95 for _, _, bars, grid in found if grid.downbeat_confidence >= 0.5]
    assert len(sure) >= 0.4 * len(found)
    assert np.mean(sure) >= 0.95


@pytest.mark.parametrize(
    "bpm",
    [
        pytest.param(50.0, marks=pytest.mark.slow),
        pytest.param(83.3, marks=pytest.mark.slow),
        120.0,
        pytest.param(174.0, marks=pytest.mark.slow),
    ],
)
def test_steady_clicks(bpm):
    times = np.arange(0.37, 30.0, 60.0 / bpm)
    grid = find_beats(click_track(times, 30.0, CLICK_RATE_HZ, first_downbeat=2), CLICK_RATE_HZ, bpm)
    assert share_near(grid.beats, times, 0.005) == 1.0
    assert grid.beat_confidence > 0.9
    (tempo,) = grid.tempo
    assert tempo.seconds == 0.0
    assert tempo.bpm == pytest.approx(bpm, rel=0.001)
    assert share_near(downbeats(grid), times[2::4], 0.01) == 1.0 or grid.downbeat_confidence < 0.3
    assert all(later > earlier for earlier, later in zip(grid.beats, grid.beats[1:], strict=False))
    assert 0.0 <= grid.beats[0] < 60.0 / bpm
    assert 30.0 - 60.0 / bpm <= grid.beats[-1] < 30.0


def test_waltz_has_three_beats_in_a_bar():
    times = np.arange(0.2, 40.0, 0.5)
    grid = find_beats(click_track(times, 40.0, CLICK_RATE_HZ, beats_per_bar=3), CLICK_RATE_HZ, 120.0)
    assert grid.beats_per_bar == 3
    assert share_near(downbeats(grid), times[::3]) == 1.0


@pytest.mark.parametrize(
    "tempo",
    [
        pytest.param(lambda time: 100.0 + time / 3.0, id="accelerating"),
        pytest.param(lambda time: 120.0 * (1.0 + 0.04 * np.sin(time / 6.0)), id="rubato", marks=pytest.mark.slow),
    ],
)
def test_tempo_that_changes_is_followed(tempo):
    times = drifting_beats(tempo, 0.5, 60.0)
    grid = find_beats(click_track(times, 60.0, CLICK_RATE_HZ), CLICK_RATE_HZ)
    assert share_near(grid.beats, times) >= 0.95
    assert len(grid.tempo) > 3
    starts = np.array([change.seconds for change in grid.tempo])
    for time in (10.0, 30.0, 50.0):
        found = grid.tempo[int(np.searchsorted(starts, time, side="right")) - 1].bpm
        assert found == pytest.approx(tempo(time), rel=0.04)


@pytest.mark.slow
def test_tempo_changes_put_every_beat_where_it_is():
    times = drifting_beats(lambda time: 100.0 + time / 3.0, 0.5, 60.0)
    grid = find_beats(click_track(times, 60.0, CLICK_RATE_HZ), CLICK_RATE_HZ)
    position, changes = grid.beats[0], list(grid.tempo)
    for beat, following in zip(grid.beats, grid.beats[1:], strict=False):
        while len(changes) > 1 and changes[1].seconds <= beat + 1e-6:
            changes.pop(0)
            position = beat
        position += 60.0 / changes[0].bpm
        assert position == pytest.approx(following, abs=0.02)


@pytest.mark.slow
def test_imprecise_playing_gives_a_steady_grid():
    exact = np.arange(0.5, 60.0, 0.5)
    played = exact + 0.008 * np.random.default_rng(1).standard_normal(len(exact))
    grid = find_beats(click_track(played, 60.0, CLICK_RATE_HZ), CLICK_RATE_HZ)
    assert share_near(grid.beats, exact, 0.005) == 1.0
    assert len(grid.tempo) == 1


@pytest.mark.parametrize(
    "kind",
    [
        "silence",
        "tone",
        "random clicks",
        "short",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("noise", "rumble")),
    ],
)
def test_sounds_without_a_beat_have_none(kind):
    random = np.random.default_rng(5)
    frames = 30 * CLICK_RATE_HZ
    rumble = np.cumsum(random.standard_normal(frames))
    samples = {
        "silence": np.zeros(frames),
        "noise": 0.1 * random.standard_normal(frames),
        "rumble": rumble / np.abs(rumble).max(),
        "tone": 0.3 * np.sin(2 * np.pi * 440.0 * np.arange(frames) / CLICK_RATE_HZ),
        "random clicks": click_track(np.sort(random.random(60) * 30.0), 30.0, CLICK_RATE_HZ)[:, 0],
        "short": click_track(np.arange(0.0, 4.9, 0.5), 4.9, CLICK_RATE_HZ)[:, 0],
    }[kind]
    assert find_beats(samples.astype(np.float32)[:, None], CLICK_RATE_HZ) == NO_BEATS


@pytest.mark.slow
def test_result_does_not_depend_on_the_sample_rate():
    times = np.arange(0.37, 20.0, 0.5)
    for rate_hz in (8_000, 44_100, 192_000):
        grid = find_beats(click_track(times, 20.0, rate_hz), rate_hz, 120.0)
        assert share_near(grid.beats, times, 0.006) == 1.0, rate_hz


@pytest.mark.slow
def test_memory_of_ten_minutes_at_192_khz():
    rate_hz = 192_000
    bar = click_track(np.arange(0.0, 2.0, 0.5), 2.0, rate_hz)
    extractor = BeatFeatureExtractor(rate_hz)
    tracemalloc.start()
    for _ in range(300):
        extractor.feed(bar)
    grid = find_beat_grid(extractor.finish(), 120.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(grid.beats) in (1200, 1201)
    assert peak < 20_000_000
