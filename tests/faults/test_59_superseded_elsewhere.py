"""A worker stops in the middle of an attempt, and another export server receives the next attempt, while the first one
knows of nothing: its listeners are told, and hear the rest there."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dgx_music import AsyncClient
from dgx_music.storage.v1 import storage_pb2 as storage
from tests.support.background_listener import BackgroundListener
from tests.support.health import SERVING, wait_for_health
from tests.support.many_hosts import ManyHosts

pytestmark = pytest.mark.slow

RATE_HZ, SECONDS = 32_000, 10.0
COUNTS = {"storage": 1, "export": 2, "generation": 2, "gateway": 1}
SETTINGS = {
    "DGX_MUSIC_LEASE_SECONDS": "4",
    "DGX_MUSIC_LEASE_SWEEP_SECONDS": "0.5",
    "DGX_MUSIC_RENEW_INTERVAL_SECONDS": "0.5",
    "DGX_MUSIC_PRELOAD": "none",
}
BEFORE_REPORT = "generation.before_renewal:stop"
"""Before storage learns which server receives the attempt: the listener has found it without."""


@pytest.mark.parametrize("failpoint", ["", BEFORE_REPORT])
async def test_listener_to_a_superseded_attempt_hears_the_next_one(tmp_path: Path, failpoint: str) -> None:
    hosts = ManyHosts(tmp_path, COUNTS, **SETTINGS)
    try:
        first, second = hosts.address("export-1"), hosts.address("export-2")
        await hosts.start("storage-1", "export-1", "export-2")
        await hosts.start("gateway-1", DGX_MUSIC_EXPORT_ADDRESS=first)
        await hosts.start("generation-1", DGX_MUSIC_EXPORT_ADDRESS=first, DGX_MUSIC_FAILPOINT=failpoint)
        await wait_for_health(hosts.channel("gateway-1"), SERVING)
        async with AsyncClient(hosts.address("gateway-1")) as client:
            generation = await client.submit("a calm piano", model="sketch", duration=SECONDS, seed=3)
            listener = BackgroundListener(generation)
            if failpoint:
                await hosts.running["generation-1"].wait_until_stopped()
                await listener.begin()
            else:
                await listener.hear(RATE_HZ)
                hosts.pause("generation-1")
            await hosts.start("generation-2", DGX_MUSIC_EXPORT_ADDRESS=second)
            heard = await listener.end()
            await generation.wait()
        request = storage.GetGenerationRequest(id=generation.id)
        row = (await hosts.music.GetGeneration(request, timeout=60)).generation
        assert row.attempt > 1
        assert row.export_address == second
        assert hashlib.sha256(heard).hexdigest() == row.metadata["pcm_sha256"]
    finally:
        await hosts.close()
