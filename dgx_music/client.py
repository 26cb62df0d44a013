"""A client for other tools: connects to a running DGX Music, with the retries and keepalive its servers expect.

async with connect() as music:
    created = await music.CreateGeneration(CreateGenerationRequest(prompt="techno at 130 BPM", duration_seconds=16))
    async for change in music.WatchGeneration(WatchGenerationRequest(id=created.generation.id)):
        print(change.generation.progress)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from dgx_music import channel
from dgx_music.gateway.v1 import gateway_pb2_grpc


@asynccontextmanager
async def connect(address: str = "127.0.0.1:50050") -> AsyncIterator[gateway_pb2_grpc.MusicServiceAsyncStub]:
    """Yields a stub with the methods of `MusicService` (gateway.proto). `address` is `host:port` or `unix:/path`.

    Raises ValueError if it is neither.
    """
    async with channel.connect(address) as gateway_channel:
        yield gateway_pb2_grpc.MusicServiceStub(gateway_channel)
