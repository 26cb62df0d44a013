"""The combined measurement of a signal."""

from __future__ import annotations

import pytest

from export_service.dsp.measurement import Measurement
from tests.support import signals


@pytest.mark.parametrize("sizes", [[1, 999], [8_192], [32_768], [100_000]])
def test_figures_are_the_same_to_the_last_bit_however_the_signal_is_cut(sizes):
    samples = signals.music(32_000, 6)
    whole, cut = Measurement(32_000, 2), Measurement(32_000, 2)
    whole.feed(samples)
    for chunk in signals.in_chunks(samples, sizes):
        cut.feed(chunk)
    assert cut.finish() == whole.finish()
