"""Gives storage servers as separate processes, and workers that claim from them through gRPC."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub

PROGRAM = """
import asyncio, sys
from service_runtime.rpc.server import serve_until_signalled
from service_runtime.observability.logging import configure_logging
from storage_service.config import StorageSettings
from storage_service.rpc.server import build
settings = StorageSettings()
configure_logging(settings.log_level, settings.log_format)
asyncio.run(serve_until_signalled([build(settings)], sys.argv[1], settings))
"""


@asynccontextmanager
async def storage_server(
    url: str, address: str, *, prefix: Sequence[str] = (), **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Starts a server on the database and yields its process once it is ready. Terminates it at the end.

    `prefix` is put before the command, such as ("faketime", "-f", "+1h").
    """
    environment = {"DGX_MUSIC_DATABASE_URL": url, "DGX_MUSIC_LOG_LEVEL": "warning", **settings}
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(sys.executable, "-c", PROGRAM, address),
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        async with connect(address) as channel:
            await StorageServiceStub(channel).GetStatistics(pb.GetStatisticsRequest(), timeout=60, wait_for_ready=True)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # The process may be a prefix that waits for the server: faketime.
        await process.wait()


@dataclass
class Worked:
    """The ids of the claimed and of the completed jobs, and the time they took."""

    claimed: list[str] = field(default_factory=list)
    completed: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def claims_per_second(self) -> float:
        """The number of jobs claimed, and completed, per second."""
        return len(self.claimed) / self.seconds


async def work_off(
    addresses: Sequence[str], workers: int, model_names: Sequence[str], *, completes: bool = True
) -> Worked:
    """Runs `workers`, spread over the servers, that claim jobs, and complete them, until none is left."""
    worked = Worked()

    async def worker(number: int, stub: StorageServiceStub) -> None:
        claim = pb.ClaimGenerationRequest(worker_id=f"worker {number}", model_names=model_names, lease_seconds=60)
        while job := await stub.ClaimGeneration(claim, timeout=60):
            if not job.lease_token:
                return
            worked.claimed.append(job.generation.id)
            if not completes:
                continue
            completion = pb.CompleteGenerationRequest(
                id=job.generation.id,
                lease_token=job.lease_token,
                file_path=f"{job.generation.id}.wav",
                file_size_bytes=1_000_000,
                generation_time_seconds=1.0,
                model_version="1",
            )
            done = await stub.CompleteGeneration(completion, timeout=60)
            worked.completed.append(done.generation.id)

    async with AsyncExitStack() as stack:
        stubs = [StorageServiceStub(await stack.enter_async_context(connect(address))) for address in addresses]
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(worker(number, stubs[number % len(stubs)]))
        worked.seconds = time.perf_counter() - began
    return worked
