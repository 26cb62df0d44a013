"""Fault 3: storage is killed right before or right after a commit. What it acknowledged is kept, what it did not
acknowledge is complete or absent, and a repeated request returns what the first one created."""

from __future__ import annotations

import signal
import uuid
from collections.abc import Callable

import grpc
import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.states import GenerationStatus
from tests.support.storage_servers import storage_server

CREATE = pb.CreateGenerationRequest(
    request_id=str(uuid.uuid4()),
    prompt="a calm piano",
    model_name="sketch",
    duration_seconds=1,
    sample_rate_hz=32000,
    channels=2,
)
CLAIM = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=60)
CHANGES = "create", "claim", "complete"
STATUS_AFTER = {
    "create": GenerationStatus.PENDING,
    "claim": GenerationStatus.PROCESSING,
    "complete": GenerationStatus.COMPLETED,
}


class Worker:
    """Creates one generation, claims it and completes it, until the server is killed."""

    def __init__(self, stub: StorageServiceStub) -> None:
        self._stub = stub
        self.acknowledged: list[str] = []
        self.job = pb.ClaimGenerationResponse()

    async def work(self) -> None:
        await self._stub.CreateGeneration(CREATE, timeout=60)
        self.acknowledged.append("create")
        self.job = await self._stub.ClaimGeneration(CLAIM, timeout=60)
        self.acknowledged.append("claim")
        await self.complete(self._stub)
        self.acknowledged.append("complete")

    async def complete(self, stub: StorageServiceStub) -> pb.CompleteGenerationResponse:
        return await stub.CompleteGeneration(
            pb.CompleteGenerationRequest(
                id=self.job.generation.id,
                lease_token=self.job.lease_token,
                file_path="outputs/a.wav",
                file_size_bytes=1000,
                generation_time_seconds=1.0,
                model_version="1",
            ),
            timeout=60,
        )


def rows(database: Database) -> list[Generation]:
    with database.read() as session:
        return list(session.query(Generation))


@pytest.mark.parametrize("empty_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("when", "change"),
    [
        ("before", "create"),
        pytest.param("before", "claim", marks=pytest.mark.slow),
        pytest.param("after", "claim", marks=pytest.mark.slow),
        ("after", "complete"),
    ],
)
async def test_kill_at_commit_keeps_acknowledged_changes(
    url: str, address: str, database: Database, is_clean: Callable[[], bool], when: str, change: str
) -> None:
    number = CHANGES.index(change) + 1
    failpoint = f"storage.{when}_commit:kill@{number}"
    async with storage_server(url, address, DGX_MUSIC_FAILPOINT=failpoint) as server, connect(address) as channel:
        worker = Worker(StorageServiceStub(channel))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await worker.work()
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await server.wait() == -signal.SIGKILL
    assert worker.acknowledged == list(CHANGES[: number - 1])
    kept = CHANGES[:number] if when == "after" else CHANGES[: number - 1]
    assert [row.status for row in rows(database)] == [STATUS_AFTER[one] for one in kept[-1:]]
    assert is_clean()


@pytest.mark.parametrize("empty_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
async def test_unacknowledged_calls_can_be_repeated(
    url: str, address: str, database: Database, is_clean: Callable[[], bool]
) -> None:
    # After a create, and before and after a completion.
    lives = [f"storage.{when}_commit:kill@{number}" for number, when in ((1, "after"), (2, "before"), (1, "after"))]
    made = set()
    async with storage_server(url, address, DGX_MUSIC_FAILPOINT=lives[0]) as server, connect(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await StorageServiceStub(channel).CreateGeneration(CREATE, timeout=60)
        await server.wait()
    async with storage_server(url, address, DGX_MUSIC_FAILPOINT=lives[1]) as server, connect(address) as channel:
        stub = StorageServiceStub(channel)
        made.add((await stub.CreateGeneration(CREATE, timeout=60)).generation.id)
        worker = Worker(stub)
        worker.job = await stub.ClaimGeneration(CLAIM, timeout=60)
        made.add(worker.job.generation.id)
        with pytest.raises(grpc.aio.AioRpcError):
            await worker.complete(stub)
        await server.wait()
    async with storage_server(url, address, DGX_MUSIC_FAILPOINT=lives[2]) as server, connect(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await worker.complete(StorageServiceStub(channel))
        await server.wait()
    async with storage_server(url, address), connect(address) as channel:
        done = await worker.complete(StorageServiceStub(channel))
    assert made == {done.generation.id} == {row.id for row in rows(database)}
    assert done.generation.state == pb.GENERATION_STATE_COMPLETED
    assert is_clean()
