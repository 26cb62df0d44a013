"""Drum hits: layers, variants and tuning."""

import numpy as np
import pytest

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.drums import _HEAD_HZ, _RECIPES, LAYERS, layer_of, render_drum
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ


def centroid_hz(sound: FloatArray) -> float:
    power = np.abs(np.fft.rfft(sound.sum(axis=0))) ** 2
    return float(np.sum(power * np.fft.rfftfreq(sound.shape[1], 1.0 / RATE_HZ)) / np.sum(power))


@pytest.mark.parametrize("name", _RECIPES)
def test_hits_begin_and_end_in_silence_at_full_level(name: str) -> None:
    for layer in range(LAYERS):
        sound = render_drum(name, 5, layer)
        assert np.isfinite(sound).all()
        assert np.max(np.abs(sound)) == pytest.approx(1.0)
        assert np.max(np.abs(sound[:, 0])) < 0.02
        assert np.max(np.abs(sound[:, -1])) < 0.02
        assert np.sum(sound.sum(axis=0) ** 2) > 0.5 * np.sum(sound[0] ** 2)  # It is there in mono.


@pytest.mark.parametrize("name", ["snare", "rock snare", "hat", "ride", "conga high", "crash"])
def test_soft_hits_are_duller_and_no_two_are_the_same(name: str) -> None:
    layers = [centroid_hz(render_drum(name, 0, layer)) for layer in range(LAYERS)]
    assert layers[0] < 0.95 * layers[-1]
    first, second = render_drum(name, 0, 2, 0), render_drum(name, 0, 2, 1)
    count = min(first.shape[1], second.shape[1])
    assert not np.array_equal(first[:, :count], second[:, :count])
    assert centroid_hz(first) == pytest.approx(centroid_hz(second), rel=0.15)


@pytest.mark.parametrize("tonic", [0, 4, 9])
@pytest.mark.parametrize("name", ["tom low", "conga low", "timpani", "house kick"])
def test_drums_ring_at_the_tonic_or_its_fifth(name: str, tonic: int) -> None:
    sound = render_drum(name, tonic, LAYERS - 1)[0][int(0.06 * RATE_HZ) :]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 1 << 18))
    hz = np.fft.rfftfreq(1 << 18, 1.0 / RATE_HZ)
    near = (hz > 0.75 * _HEAD_HZ[name]) & (hz < 1.35 * _HEAD_HZ[name])
    pitch = 69 + 12 * np.log2(hz[near][np.argmax(spectrum[near])] / 440.0)
    assert min(abs((pitch - tonic - above + 6) % 12 - 6) for above in (0, 7)) < 0.6


@pytest.mark.parametrize("name", ["riser", "reverse crash", "swell"])
def test_what_leads_to_a_beat_is_two_seconds_long_and_loudest_at_its_end(name: str) -> None:
    sound = render_drum(name, 0)
    assert sound.shape == (2, 2 * RATE_HZ)
    levels = [np.sqrt(np.mean(part**2)) for part in np.array_split(sound[:, :-400], 4, axis=1)]
    assert levels == sorted(levels)


def test_velocities_select_layers() -> None:
    assert [layer_of(velocity) for velocity in (0.0, 0.3, 0.6, 0.8, 1.0)] == [0, 1, 2, 3, 3]
