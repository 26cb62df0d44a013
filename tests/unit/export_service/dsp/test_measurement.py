"""The combined measurement of a signal."""

from __future__ import annotations

import pytest

from export_service.dsp.measurement import SignalMeter
from tests.support import signals


@pytest.mark.parametrize("sizes", [[1, 999], [8_192], [32_768], [100_000]])
def test_measurement_does_not_depend_on_chunk_sizes(sizes):
    samples = signals.music(32_000, 6)
    whole, cut = SignalMeter(32_000, 2), SignalMeter(32_000, 2)
    whole.feed(samples)
    for chunk in signals.in_chunks(samples, sizes):
        cut.feed(chunk)
    assert cut.finish() == whole.finish()
