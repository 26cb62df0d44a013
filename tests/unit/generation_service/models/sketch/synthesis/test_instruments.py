"""Single notes of the instruments."""

import numpy as np
import pytest

from generation_service.models.base import FloatArray
from generation_service.models.sketch.synthesis.instruments import INSTRUMENTS, render_instrument
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ


@pytest.mark.parametrize("name", sorted(INSTRUMENTS))
def test_instruments_start_and_end_in_silence(name: str) -> None:
    sound = render_instrument(name, (48,), 12_000, glide=7 if name == "808" else 0)
    assert np.max(np.abs(sound[:, 0])) < 0.03
    assert np.max(np.abs(sound[:, -1])) < 0.01
    assert np.max(np.abs(sound)) > 0.1


@pytest.mark.parametrize("name", ["piano", "flute", "bass", "synth"])
def test_instruments_are_in_tune(name: str) -> None:
    sound = render_instrument(name, (57,), RATE_HZ)[0]
    size = 1 << 17
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), size))
    hz = np.fft.rfftfreq(size, 1.0 / RATE_HZ)
    near = (hz > 200.0) & (hz < 240.0)
    peak = hz[near][np.argmax(spectrum[near])]
    assert abs(1200.0 * np.log2(peak / 220.0)) < 10.0


def centroid_hz(sound: FloatArray) -> float:
    power = np.abs(np.fft.rfft(sound.sum(axis=0))) ** 2
    return float(np.sum(power * np.fft.rfftfreq(sound.shape[1], 1.0 / RATE_HZ)) / np.sum(power))


@pytest.mark.parametrize("name", ["piano", "trumpet", "slap bass", "steel guitar", "vibraphone", "pluck", "sax"])
def test_a_note_that_is_played_hard_is_brighter(name: str) -> None:
    soft, hard = (centroid_hz(render_instrument(name, (60,), RATE_HZ, hardness=level)) for level in (0.2, 0.9))
    assert hard > 1.08 * soft


def test_muted_strings_are_short_and_dull() -> None:
    for name in ("distorted guitar", "steel guitar", "pick bass"):
        let_ring = render_instrument(name, (45,), RATE_HZ)
        muted = render_instrument(name, (45,), RATE_HZ, articulation="mute")
        assert muted.shape[1] < 0.3 * let_ring.shape[1]
        assert centroid_hz(muted) < centroid_hz(let_ring[:, : muted.shape[1]])


def test_a_slide_begins_below_its_pitch() -> None:
    played = render_instrument("sax", (57,), RATE_HZ, articulation="slide")[0]
    straight = render_instrument("sax", (57,), RATE_HZ)[0]

    def crossings(sound: FloatArray, first: float, last: float) -> int:
        part = sound[int(first * RATE_HZ) : int(last * RATE_HZ)]
        kernel = np.ones(60) / 60  # Leaves the fundamental.
        smooth = np.convolve(part - part.mean(), kernel, "same")
        return int(np.sum(np.diff(np.signbit(smooth))))

    assert crossings(played, 0.5, 1.0) == pytest.approx(crossings(straight, 0.5, 1.0), abs=2)
    assert not np.array_equal(played[:1000], straight[:1000])


@pytest.mark.parametrize("lfo_hz", [2.0, 5.0])
@pytest.mark.parametrize("name", ["wobble", "growl"])
def test_a_wobble_opens_as_often_as_asked(name: str, lfo_hz: float) -> None:
    sound = render_instrument(name, (36,), 2 * RATE_HZ, lfo_hz=lfo_hz).sum(axis=0)[: 2 * RATE_HZ]
    bright = np.abs(np.diff(sound, 4)) ** 2
    level = np.array([part.mean() for part in np.array_split(bright, 200)])
    rates = np.abs(np.fft.rfft(level - level.mean()))
    assert np.argmax(rates) / 2.0 == pytest.approx(lfo_hz, abs=0.5)
