"""Ten times the clients that a server process can serve: it refuses at once with a time to retry, does all that it has
accepted, and is healthy. `python -m benchmarks.gateway --only overload` measures it with 500 clients."""

from __future__ import annotations

import asyncio
import statistics
from collections import Counter
from pathlib import Path

import pytest

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.channel import connect
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from tests.support.load_clients import (
    LoadReport,
    create_finished,
    final_states,
    music_stubs,
    run_creators,
    run_listeners,
    watched_health,
)
from tests.support.server_processes import serving

pytestmark = pytest.mark.slow

CREATORS, LISTENERS, SECONDS = 60, 30, 2.0


async def test_overloaded_server_refuses_with_a_time_to_retry_and_does_all_that_it_accepted(tmp_path: Path) -> None:
    settings = {"DGX_MUSIC_MAX_CONCURRENT_CALLS": "1"}
    report = LoadReport()
    async with serving(tmp_path, **settings) as servers:
        address = servers.addresses["gateway"]
        async with (
            connect(address) as channel,
            music_stubs(address, CREATORS) as creators,
            music_stubs(address, LISTENERS) as listeners,
        ):
            finished = await create_finished(creators[0], SECONDS, 2)
            requests = [StreamAudioRequest(generation_id=each.id, level=AUDIO_LEVEL_LIVE) for each in finished]
            sha256 = {each.id: each.metadata["pcm_sha256"] for each in finished}
            async with watched_health(channel, report):
                await asyncio.gather(
                    run_creators(creators, SECONDS, 0.5, report), run_listeners(listeners, requests, sha256, report)
                )
            states = await final_states(creators[0], report.kept)
            cancelled = await final_states(creators[0], report.cancelled)
    assert not report.errors
    assert len(report.heard) == LISTENERS
    assert set(report.health) == {"SERVING"}
    assert report.health_changes == ["SERVING"]
    assert set(report.refusals) == {"SERVER_BUSY"}
    assert not report.refusals_without_retry_time
    # Far apart even on a busy machine: a refused call waits for nothing.
    assert statistics.median(report.refused_seconds) < max(report.accepted_seconds)
    assert report.kept
    assert states == Counter(COMPLETED=len(report.kept))
    assert set(cancelled) <= {"CANCELLED"}
