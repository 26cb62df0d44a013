"""Two clients of storage with the same methods: the library in this process, and gRPC to a server."""

from __future__ import annotations

from typing import Any, Protocol

import storage_service as library
from benchmarks.storage_rows import CLIENTS, MODELS
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db.database import Database
from storage_service.domain import leases

PROMPT = "calm lo-fi hip hop at 84 BPM in A minor with a warm piano and brushed drums"
METADATA = {"bpm": 84.0, "key": "A minor", "genre": "lo-fi hip hop", "pcm_sha256": "0" * 64, "file_sha256": "0" * 64}
TIMEOUT_SECONDS = 60

Lease = tuple[str, str]
"""A generation's id and its lease token."""


class Client(Protocol):
    """The operations that are measured. Each call is one transaction."""

    async def insert(self, number: int) -> None: ...

    async def get(self, generation_id: str) -> None: ...

    async def list_completed(self, count: int) -> int: ...

    async def statistics(self) -> None: ...

    async def claim(self) -> Lease: ...

    async def complete(self, lease: Lease) -> None: ...


class LibraryClient:
    """Calls the library the way `storage_service.get_session()` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def insert(self, number: int) -> None:
        with self._database.write() as session:
            prompt, model = f"{PROMPT}, {number % 50}", MODELS[number % len(MODELS)]
            client = CLIENTS[number % len(CLIENTS)]
            library.create_generation(session, prompt, model, 16.0, 32000, 2, "outputs/a.wav", client=client)

    async def get(self, generation_id: str) -> None:
        with self._database.write() as session:
            assert library.get_generation(session, generation_id) is not None

    async def list_completed(self, count: int) -> int:
        with self._database.write() as session:
            return len(library.get_generations_by_status(session, "completed", limit=count))

    async def statistics(self) -> None:
        with self._database.write() as session:
            library.get_database_stats(session)

    async def claim(self) -> Lease:
        with self._database.write() as session:
            claimed = leases.claim(session, "worker", MODELS, 60.0)
        assert claimed is not None
        return claimed.id, claimed.lease_token or ""

    async def complete(self, lease: Lease) -> None:
        completion = leases.Completion(f"outputs/{lease[0]}.wav", 3_072_044, 1.5, "1", METADATA)
        with self._database.write() as session:
            leases.complete(session, *lease, completion)


class RpcClient:
    """Calls a server the way a worker or the gateway does."""

    def __init__(self, stub: StorageServiceStub) -> None:
        self._stub = stub

    async def insert(self, number: int) -> None:
        request = pb.CreateGenerationRequest(
            prompt=f"{PROMPT}, {number % 50}",
            model_name=MODELS[number % len(MODELS)],
            duration_seconds=16,
            sample_rate_hz=32000,
            channels=2,
        )
        await self._stub.CreateGeneration(request, timeout=TIMEOUT_SECONDS)

    async def get(self, generation_id: str) -> None:
        await self._stub.GetGeneration(pb.GetGenerationRequest(id=generation_id), timeout=TIMEOUT_SECONDS)

    async def list_completed(self, count: int) -> int:
        request = pb.ListGenerationsRequest(states=[pb.GENERATION_STATE_COMPLETED], page_size=count)
        return len((await self._stub.ListGenerations(request, timeout=TIMEOUT_SECONDS)).generations)

    async def statistics(self) -> None:
        await self._stub.GetStatistics(pb.GetStatisticsRequest(), timeout=TIMEOUT_SECONDS)

    async def claim(self) -> Lease:
        request = pb.ClaimGenerationRequest(worker_id="worker", model_names=MODELS, lease_seconds=60)
        claimed = await self._stub.ClaimGeneration(request, timeout=TIMEOUT_SECONDS)
        return claimed.generation.id, claimed.lease_token

    async def complete(self, lease: Lease) -> None:
        await complete_by_call(self._stub, lease)


async def complete_by_call(stub: Any, lease: Lease) -> None:
    """Completes a generation as export does."""
    request = pb.CompleteGenerationRequest(
        id=lease[0],
        lease_token=lease[1],
        file_path=f"outputs/{lease[0]}.wav",
        file_size_bytes=3_072_044,
        generation_time_seconds=1.5,
        model_version="1",
    )
    request.metadata.update(METADATA)
    await stub.CompleteGeneration(request, timeout=TIMEOUT_SECONDS)
