"""Many listeners to one generation."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from dgx_music.errors import FailedPrecondition
from dgx_music.export.v1.export_pb2 import StreamAudioRequest
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from gateway.rpc.generation_watches import GenerationWatches
from gateway.rpc.service_client import ServiceClient
from service_runtime.settings import Settings
from tests.support.embedded_services import EmbeddedServices

UNKNOWN = "00000000-0000-4000-8000-000000000000"


async def test_all_listeners_of_a_cancelled_generation_are_told_and_others_go_on(
    library_services: EmbeddedServices,
) -> None:
    """One of them has left before."""
    ids = [await create(library_services, seed) for seed in (1, 2)]
    streams = [library_services.music.StreamAudio(StreamAudioRequest(generation_id=ids[0]), timeout=60) for _ in "abc"]
    other = library_services.music.StreamAudio(StreamAudioRequest(generation_id=ids[1]), timeout=60)
    reads = [asyncio.create_task(read(stream)) for stream in (*streams, other)]
    streams[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await reads[0]
    for generation_id, stopped in ((ids[0], reads[1:3]), (ids[1], reads[3:])):
        assert not any(task.done() for task in stopped)
        await library_services.music.CancelGeneration(storage.CancelGenerationRequest(id=generation_id), timeout=60)
        for task in stopped:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await task
            details = read_error_details(caught.value)
            assert (details.code, details.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GENERATION_CANCELLED")


class CountingClient(ServiceClient[Any]):
    """Counts the streams that it has opened."""

    streams = 0

    def call_server_stream(self, *arguments: Any, **options: Any) -> Any:
        self.streams += 1
        return super().call_server_stream(*arguments, **options)


async def test_listeners_share_one_watch_which_ends_with_the_last_of_them(library_services: EmbeddedServices) -> None:
    client = CountingClient(
        "dgx_music.storage.v1.StorageService", library_services.address, StorageServiceStub, Settings()
    )
    client.open()
    try:
        generation_id = await create(library_services, 1)
        watches = GenerationWatches(client)
        async with watches.join(generation_id) as first:
            await first.require_possible()
            async with watches.join(generation_id) as second:
                assert second is first
                await second.require_possible()
            assert not first.is_done
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async with watches.join(UNKNOWN) as unknown:
                    await unknown.require_possible()
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert first.is_done
        assert client.streams == 2
        # A retried generation can be listened to again: a watch that has ended is not joined.
        claim = storage.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=60)
        claimed = await library_services.storage.ClaimGeneration(claim, timeout=60)
        fail = storage.FailGenerationRequest(id=generation_id, lease_token=claimed.lease_token, error_message="broken")
        await library_services.storage.FailGeneration(fail, timeout=60)
        async with watches.join(generation_id) as ended:
            with pytest.raises(FailedPrecondition, match="failed: broken"):
                await ended.require_possible()
            await library_services.music.RetryGeneration(storage.RetryGenerationRequest(id=generation_id), timeout=60)
            async with watches.join(generation_id) as retried:
                await retried.require_possible()
    finally:
        await client.close()


async def create(services: EmbeddedServices, seed: int) -> str:
    request = storage.CreateGenerationRequest(
        prompt="a", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2, seed=seed
    )
    return (await services.storage.CreateGeneration(request, timeout=60)).generation.id


async def read(stream: Any) -> Any:
    return await stream.read()
