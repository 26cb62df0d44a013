"""Single notes of the instruments."""

import numpy as np
import pytest

from generation_service.models.sketch.pads import PADS
from generation_service.models.sketch.synthesis.instruments import TIMBRES, render_instrument
from generation_service.models.sketch.synthesis.tone_synthesis import RATE_HZ


@pytest.mark.parametrize("name", [*TIMBRES, *PADS, "808"])
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
