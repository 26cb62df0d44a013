"""The sliding window of the engine's throughput."""

from __future__ import annotations

import pytest

from generation_service.engine.throughput import Throughput


def test_rates_cover_the_last_ten_seconds():
    now = 100.0
    throughput = Throughput(lambda: now)
    assert throughput.rates() == (0.0, 0.0)
    for _ in range(5):
        throughput.record_step(2.0)
    now = 105.0
    for _ in range(5):
        throughput.record_step(1.0)
    assert throughput.rates() == (1.0, 1.5)
    now = 109.9
    assert throughput.rates() == (1.0, 1.5)
    now = 110.1
    assert throughput.rates() == (0.5, 0.5)
    now = 200.0
    assert throughput.rates() == (0.0, 0.0)


def test_memory_use_does_not_depend_on_the_step_rate():
    now = 0.0
    throughput = Throughput(lambda: now)
    for step in range(200_000):
        now = step / 10_000
        throughput.record_step(0.01)
    steps, audio_seconds = throughput.rates()
    assert steps == pytest.approx(10_000, rel=0.01)
    assert audio_seconds == pytest.approx(100, rel=0.01)
    assert len(throughput._buckets) <= 101


def test_busy_rate_leaves_out_idle_time():
    now = 100.0
    throughput = Throughput(lambda: now)
    assert throughput.busy_rate == 0.0
    throughput.record_step(2.0, busy_seconds=0.5)
    now = 109.0
    throughput.record_step(1.0, busy_seconds=0.5)
    assert throughput.busy_rate == 3.0
    now = 150.0
    assert throughput.busy_rate == 0.0


def test_speed_of_a_sequence_is_known_after_some_audio_and_follows_the_latest():
    throughput = Throughput()
    assert throughput.sequence_speed("a") is None
    throughput.record_block("a", 4.0, 1.0)
    assert throughput.sequence_speed("a") is None
    throughput.record_block("a", 4.0, 1.0)
    assert throughput.sequence_speed("a") == pytest.approx(4.0)
    assert throughput.sequence_speed("b") is None
    for _ in range(500):
        throughput.record_block("a", 1.0, 1.0)
    assert throughput.sequence_speed("a") == pytest.approx(1.0, rel=0.05)
