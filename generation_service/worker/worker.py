"""Claims work from storage and runs it, a few jobs at a time."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket

import grpc.aio
from structlog.contextvars import bound_contextvars

from dgx_music.errors import Unavailable
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from generation_service.config import GenerationSettings
from generation_service.engine.engine import Engine
from generation_service.worker.job import Job
from generation_service.worker.lease import CALL_SECONDS
from service_runtime.observability.logging import get_logger
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

CLAIM_WAIT_SECONDS = 5.0
"""How long one claim waits for work: and so, at most, the first job of a model that was installed meanwhile."""
CLAIM_SPARE_SECONDS = 5.0
"""What the call may take beyond that."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 10.0


class Worker:
    """Has one claim on its way whenever a slot is free. If it dies, its jobs go to others when their leases end."""

    def __init__(
        self,
        engine: Engine,
        storage: storage_pb2_grpc.StorageServiceAsyncStub,
        export: export_pb2_grpc.ExportServiceAsyncStub,
        settings: GenerationSettings,
    ) -> None:
        self.id = f"{socket.gethostname()[:150]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._engine = engine
        self._storage = storage
        self._export = export
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.worker_slots or settings.max_batch_size)
        self._jobs: dict[asyncio.Task[None], Job] = {}
        self._claiming: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to claim."""
        self._claiming = asyncio.create_task(self._claim_on())

    def check(self) -> None:
        """Raises Unavailable where no more work is claimed."""
        if self._claiming is None or self._claiming.done():
            raise Unavailable("the worker claims no more work", reason="WORKER_STOPPED")

    async def drain(self, grace_seconds: float) -> None:
        """Claims no more, gives running jobs the grace to end, and hands back what is left."""
        if self._claiming is None:
            return
        self._claiming.cancel()
        await asyncio.gather(self._claiming, return_exceptions=True)
        if self._jobs:
            _, left = await asyncio.wait(self._jobs, timeout=grace_seconds)
            for task in left:
                self._jobs[task].hand_back()
        if self._jobs:
            # Storage that is away now does not keep the server from ending: the leases end by themselves.
            _, left = await asyncio.wait(self._jobs, timeout=CALL_SECONDS)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _claim_on(self) -> None:
        failures = 0
        while True:
            await self._slots.acquire()
            try:
                self._engine.check()
                claim = await self._claim()
            except UnrecoverableError:
                return  # What others can still make should not be tried here.
            except (Unavailable, grpc.aio.AioRpcError) as error:
                self._slots.release()
                if not failures:
                    problem = error.details() if isinstance(error, grpc.aio.AioRpcError) else error.message
                    log.warning("no claim", worker=self.id, error=problem)
                pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**failures)
                failures += 1
                # Workers that lost the same storage should not all come back at the same moment.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                continue
            if failures:
                log.info("claims again", worker=self.id)
                failures = 0
            if claim.HasField("generation"):
                self._begin(claim)
            else:
                self._slots.release()

    async def _claim(self) -> storage_pb2.ClaimGenerationResponse:
        request = storage_pb2.ClaimGenerationRequest(
            worker_id=self.id,
            model_names=await self._engine.catalog.refreshed_names(),
            lease_seconds=self._settings.lease_seconds,
            wait_seconds=CLAIM_WAIT_SECONDS,
        )
        # Storage that is just being started is waited for: a refused connection would cost the first job a pause.
        return await self._storage.ClaimGeneration(
            request, timeout=CLAIM_WAIT_SECONDS + CLAIM_SPARE_SECONDS, wait_for_ready=True
        )

    def _begin(self, claim: storage_pb2.ClaimGenerationResponse) -> None:
        with bound_contextvars(generation_id=claim.generation.id, attempt=claim.generation.attempt):
            job = Job(self._engine, self._storage, self._export, claim, self._settings)
            task = asyncio.create_task(job.run())  # Takes the bound id along into its own context.
        self._jobs[task] = job
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._jobs[task]
        self._slots.release()
        if not task.cancelled() and (error := task.exception()):
            log.error("unforeseen error", exc_info=error)
