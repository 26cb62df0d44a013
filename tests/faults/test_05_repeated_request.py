"""Faults 5 and 6: fifty callers send one request at the same time, and thirty workers claim the one generation that it
made, at two servers on one Postgres database: there is one row, one answer and one lease."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from tests.support.storage_servers import storage_server

CALLERS, WORKERS = 50, 30


@pytest.mark.parametrize("empty_url", ["postgres"], indirect=True)
async def test_one_request_makes_one_generation_that_one_worker_gets(
    url: str, tmp_path: Path, is_clean: Callable[[], bool]
) -> None:
    addresses = [f"unix:{tmp_path}/{name}.sock" for name in "ab"]
    request = pb.CreateGenerationRequest(
        request_id=str(uuid.uuid4()),
        prompt="a calm piano",
        model_name="sketch",
        duration_seconds=1,
        sample_rate_hz=32000,
        channels=2,
    )
    async with (
        storage_server(url, addresses[0]),
        storage_server(url, addresses[1]),
        connect(addresses[0]) as first,
        connect(addresses[1]) as second,
    ):
        stubs = [StorageServiceStub(first), StorageServiceStub(second)]
        made = await asyncio.gather(
            *(stubs[number % 2].CreateGeneration(request, timeout=60) for number in range(CALLERS))
        )
        assert len({one.generation.id for one in made}) == 1
        request.prompt = "another one"
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stubs[1].CreateGeneration(request, timeout=60)
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "request_id" in read_error_details(raised.value).violations
        claims = await asyncio.gather(
            *(
                stubs[number % 2].ClaimGeneration(
                    pb.ClaimGenerationRequest(worker_id=f"w{number}", model_names=["sketch"], lease_seconds=60),
                    timeout=60,
                )
                for number in range(WORKERS)
            )
        )
        [won] = [one for one in claims if one.lease_token]
        assert won.generation.id == made[0].generation.id
        listed = await stubs[0].ListGenerations(pb.ListGenerationsRequest(), timeout=60)
        assert [(row.id, row.attempt) for row in listed.generations] == [(won.generation.id, 1)]
        prompts = (await stubs[0].ListPrompts(pb.ListPromptsRequest(), timeout=60)).prompts
        assert [(one.text, one.used_count) for one in prompts] == [("a calm piano", 1)]
    assert is_clean()
