"""Instruments without an endpoint, and distributions that code keeps itself."""

from __future__ import annotations

import math

import pytest

from service_runtime.observability.metrics import Counter, Distribution, Gauge, Histogram, Instrument
from tests.support.shown_metrics import ShownMetric, shown


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> list[Instrument]:
    """Keeps the instruments of a test away from those of the process."""
    instruments: list[Instrument] = []
    monkeypatch.setattr(Instrument, "declared", instruments)
    return instruments


def test_an_instrument_does_nothing_unless_it_is_shown(declared: list[Instrument]) -> None:
    files = Counter("test_files_total", "Files.", ("format",))
    assert declared == [files]
    files.inc("wav")
    assert not files.is_shown
    with shown(files) as updates:
        assert files.is_shown
        files.inc("wav")
        files.inc("wav", by=2.0)
    files.inc("wav")
    assert updates == {("wav",): [1.0, 2.0]}


@pytest.mark.usefixtures("declared")
def test_several_endpoints_show_the_same() -> None:
    streams = Gauge("test_streams", "Streams.")
    first, second = ShownMetric(), ShownMetric()
    streams.attach(first)
    for metric in streams.bind():
        metric.inc()
    streams.attach(second)
    for metric in streams.bind():
        metric.dec()
    assert (first.updates, second.updates) == ({(): [1.0, -1.0]}, {(): [-1.0]})


@pytest.mark.usefixtures("declared")
def test_a_block_is_timed_even_if_it_raises() -> None:
    seconds = Histogram("test_seconds", "Time.", ("phase",))
    with shown(seconds) as updates, pytest.raises(ValueError, match="away"), seconds.time("write"):
        raise ValueError("away")
    assert list(updates) == [("write",)]
    assert 0.0 <= updates["write",][0] < 60.0


def test_a_distribution_counts_up_to_and_including_each_bound() -> None:
    distribution = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        distribution.observe(value)
    before = distribution.copy()
    distribution.observe(9.0)
    assert before.cumulative() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert before.sum == 12.0
    assert math.isclose(distribution.sum, 21.0)
