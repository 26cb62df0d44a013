"""GetBeatGrid through the gateway: of an imported clip, which has no generation that says its tempo."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from dgx_music.export.v1.export_pb2 import GetBeatGridRequest
from tests.support.click_tracks import click_track
from tests.support.embedded_services import EmbeddedServices
from tests.support.library_files import RATE, SECONDS, clip


async def test_beats_of_an_imported_clip(library_services: EmbeddedServices) -> None:
    times = np.arange(0.3, 8.0, 0.5)
    clip_id = await clip(library_services, click_track(times, 8.0, RATE))
    grid = await library_services.music.GetBeatGrid(GetBeatGridRequest(generation_id=clip_id), timeout=SECONDS)
    np.testing.assert_allclose(grid.beat_seconds, times, atol=0.01)
    assert grid.tempo[0].bpm == pytest.approx(120.0, abs=0.1)
    assert grid.beat_confidence > 0.9
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await library_services.music.GetBeatGrid(
            GetBeatGridRequest(generation_id="00000000-0000-4000-8000-000000000000"), timeout=SECONDS
        )
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
