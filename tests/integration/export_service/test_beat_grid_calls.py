"""GetBeatGrid of finished files and clips."""

from __future__ import annotations

import numpy as np
import pytest

from dgx_music.export.v1 import export_pb2
from tests.support.click_tracks import click_track
from tests.support.export_client import RATE_HZ, TIMEOUT_SECONDS, new_id, raises_rpc_error


async def test_beat_grid_of_a_finished_file(client):
    generation_id, times = new_id(), np.arange(0.25, 12.0, 0.5)
    await client.export(generation_id, np.repeat(click_track(times, 12.0, RATE_HZ), 2, axis=1))
    request = export_pb2.GetBeatGridRequest(generation_id=generation_id)
    grid = await client.stub.GetBeatGrid(request, timeout=TIMEOUT_SECONDS)
    np.testing.assert_allclose(grid.beat_seconds, times, atol=0.01)
    assert (grid.beats_per_bar, len(grid.tempo)) == (4, 1)
    assert grid.tempo[0].bpm == pytest.approx(120.0, abs=0.1)
    assert grid.beat_confidence > 0.9
    request.expected_bpm = 60.0
    assert (await client.stub.GetBeatGrid(request, timeout=TIMEOUT_SECONDS)).tempo[0].bpm == pytest.approx(
        60.0, abs=0.1
    )


async def test_beat_grid_of_music_without_a_beat_is_empty(client):
    generation_id = new_id()
    await client.export(
        generation_id, (0.1 * np.random.default_rng(1).standard_normal((RATE_HZ * 8, 2))).astype(np.float32)
    )
    request = export_pb2.GetBeatGridRequest(generation_id=generation_id)
    assert await client.stub.GetBeatGrid(request, timeout=TIMEOUT_SECONDS) == export_pb2.GetBeatGridResponse()


async def test_beat_grid_rejects_what_it_can_not_find(client):
    request = export_pb2.GetBeatGridRequest(generation_id=new_id())
    async with raises_rpc_error("NOT_FOUND", "FILE_NOT_FOUND"):
        await client.stub.GetBeatGrid(request, timeout=TIMEOUT_SECONDS)
    for bpm in (39.9, -120.0, float("nan"), 241.0):
        request.expected_bpm = bpm
        async with raises_rpc_error("INVALID_ARGUMENT", field="expected_bpm"):
            await client.stub.GetBeatGrid(request, timeout=TIMEOUT_SECONDS)
    request = export_pb2.GetBeatGridRequest(generation_id="../../etc/passwd")
    async with raises_rpc_error("INVALID_ARGUMENT", field="generation_id"):
        await client.stub.GetBeatGrid(request, timeout=TIMEOUT_SECONDS)
