"""What the gateway and export spend on calls, health checks and listeners, with real services in four processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_LIVE
from dgx_music.channel import connect
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceStub
from dgx_music.storage.v1 import storage_pb2
from tests.support.load_clients import LoadReport, create_finished, listen
from tests.support.server_processes import SERVICES, Servers, serving

AUDIO_SECONDS, LISTENERS = 20.0, 40
CALLS, CHECKS, AT_A_TIME = 1_000, 1_000, 16

Used = dict[str, float]
"""Service → CPU milliseconds of one call, or of a second of audio of one listener."""


async def measure_gateway(folder: Path) -> dict[str, Used]:
    """Measures one kind of call after the other."""
    async with (
        serving(folder, *SERVICES, DGX_MUSIC_DATABASE_URL=f"sqlite:///{folder}/a.db") as servers,
        connect(servers.addresses["gateway"]) as channel,
    ):
        music: Any = MusicServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        [finished] = await create_finished(music, AUDIO_SECONDS, 1)
        request = storage_pb2.GetGenerationRequest(id=finished.id)
        audio = StreamAudioRequest(generation_id=finished.id, level=AUDIO_LEVEL_LIVE)

        async def listen_all() -> None:
            await asyncio.gather(*(listen(music, audio, LoadReport()) for _ in range(LISTENERS)))

        check = health_pb2.HealthCheckRequest()
        return {
            "GetGeneration": await _used(servers, CALLS, lambda: music.GetGeneration(request, timeout=60)),
            "health check": await _used(servers, CHECKS, lambda: health.Check(check, timeout=60)),
            "a listener, for a second of audio": await _spent(servers, LISTENERS * AUDIO_SECONDS, listen_all()),
        }


async def _used(servers: Servers, count: int, call: Callable[[], Awaitable[Any]]) -> Used:
    async def repeat() -> None:
        for _ in range(count // AT_A_TIME):
            await call()

    async def all_calls() -> None:
        await asyncio.gather(*(repeat() for _ in range(AT_A_TIME)))

    return await _spent(servers, count // AT_A_TIME * AT_A_TIME, all_calls())


async def _spent(servers: Servers, units: float, work: Awaitable[Any]) -> Used:
    names = ("gateway", "storage", "export")
    before, started_at = {name: servers.cpu_seconds(name) for name in names}, time.perf_counter()
    await work
    used = {name: (servers.cpu_seconds(name) - before[name]) / units * 1e3 for name in names}
    return used | {"wall": (time.perf_counter() - started_at) / units * 1e3}
