"""Fault 10: a listener stops reading while far more audio is generated than all buffers hold. Nothing waits for it, the
audio is not held in memory for it, and when it goes on reading, it gets all samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmReader
from tests.support.tone_model import RATE_HZ
from tests.support.tone_processes import tone_processes

pytestmark = pytest.mark.slow
SECONDS = 900.0
AUDIO_BYTES = int(SECONDS * RATE_HZ * 2 * 4)
"""58 MB of float32."""
MAX_GROWTH_BYTES = AUDIO_BYTES // 4


async def test_listener_that_stops_reading_costs_no_memory_and_no_time(tmp_path: Path) -> None:
    async with tone_processes(tmp_path / "data", "storage", "export") as services:
        await services.start_worker()
        await services.start("gateway")
        relays = [services.running[name] for name in ("gateway", "export")]
        await services.wait_until_completed(await services.create(seconds=SECONDS))  # What it takes without a listener.
        before = [service.peak_memory_bytes() for service in relays]

        generation_id = await services.create(seconds=SECONDS)
        call = services.music.StreamAudio(export_pb2.StreamAudioRequest(generation_id=generation_id), timeout=300)
        header = (await call.read()).header
        done = await services.wait_until_completed(generation_id)
        assert done.attempt == 1
        growth = [service.peak_memory_bytes() - earlier for service, earlier in zip(relays, before, strict=True)]
        assert max(growth) < MAX_GROWTH_BYTES, growth

        reader = PcmReader(header)
        while (part := await call.read()).WhichOneof("part") == "chunk":
            reader.accept(part.chunk)
        reader.finish(part.end)
        assert reader.frames * 8 == AUDIO_BYTES
