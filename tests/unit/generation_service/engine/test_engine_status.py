"""What the engine tells of its load."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from generation_service.engine.engine_status import EngineStatus
from tests.support.engine_calls import read, submit
from tests.support.tone_model import RATE_HZ, Gate, ManualClock, tone_parameters


async def test_status_counts_requests_steps_and_audio(start_engine, model):
    engine = await start_engine(model, max_batch_size=1, max_waiting=5, clock=ManualClock())
    gate = model.at["a", 2] = Gate()
    requests = [submit(engine, "", tone_parameters(name, 4)) for name in "ab"]
    await gate.reached()
    audio_seconds = 800 / RATE_HZ
    status = engine.status()
    assert (status.step_seconds.sum, status.batch_sizes.sum, status.total_audio_seconds) == (0.0, 1.0, audio_seconds)
    expected = EngineStatus(1, 1, 1, 5, 0.1, audio_seconds / 10, 0, 0)
    assert status == replace(expected, **totals_of(status))
    gate.open()
    for request in requests:
        await read(request)
    status = engine.status()
    assert (sum(status.batch_sizes.counts), status.total_audio_seconds) == (8, pytest.approx(8 * audio_seconds))
    expected = EngineStatus(0, 0, 1, 5, 0.8, pytest.approx(8 * audio_seconds / 10), 0, 0)
    assert status == replace(expected, **totals_of(status))


def totals_of(status: EngineStatus) -> dict[str, Any]:
    return {name: getattr(status, name) for name in ("total_audio_seconds", "step_seconds", "batch_sizes")}
