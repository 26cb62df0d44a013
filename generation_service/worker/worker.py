"""Claims jobs from the storage service and runs several of them at once."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2
from structlog.contextvars import bound_contextvars

from dgx_music.error_status import read_error_details
from dgx_music.errors import Unavailable
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from generation_service.config import GenerationSettings
from generation_service.engine.failures import format_error
from generation_service.processes.engine_pool import EnginePool
from generation_service.worker.backoff import Backoff
from generation_service.worker.export_calls import TRANSIENT_CODES
from generation_service.worker.job import SUSPEND_SECONDS, Job
from generation_service.worker.lease import CALL_TIMEOUT_SECONDS
from service_runtime.failpoints import failpoint
from service_runtime.observability.logging import get_logger
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

CLAIM_WAIT_SECONDS = 5.0
"""How long one claim waits for a job. A model that was just installed is offered with the next claim."""
CLAIM_TIMEOUT_MARGIN_SECONDS = 5.0
"""How much longer than `CLAIM_WAIT_SECONDS` the claim call may take."""
LAST_ANSWER_SECONDS = 1.0
"""How long a server that drains waits for storage before it gives up a claim."""
HAND_BACK_DELAYS = 0.1, 1.0
"""The first and the longest delay, in seconds, before a hand-back is repeated."""
SHUTTING_DOWN = "the server is shutting down"
INITIAL_DELAY_SECONDS, MAX_DELAY_SECONDS = 1.0, 10.0
"""The delays after failed claims."""
DELAY_JITTER = 0.5
REJECTION_CODES = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)
"""Status codes of a claim after which the same claim would fail again: the service token is wrong, for example."""


class Worker:
    """Keeps one claim pending while a slot is free, which is a place in the batch of an engine that accepts requests.

    If it dies, other workers get its jobs when the leases expire.
    """

    def __init__(
        self,
        engine: EnginePool,
        storage: storage_pb2_grpc.StorageServiceAsyncStub,
        export: export_pb2_grpc.ExportServiceAsyncStub,
        settings: GenerationSettings,
        storage_health: Any,
    ) -> None:
        """`storage_health` is a HealthStub of storage."""
        self.id = f"{socket.gethostname()[:150]}-{os.getpid()}-{secrets.token_hex(4)}"
        self._engine = engine
        self._storage = storage
        self._export = export
        self._settings = settings
        self._storage_health = storage_health
        self._slots_changed = asyncio.Event()
        engine.on_capacity_changed(self._slots_changed.set)
        self._jobs: dict[asyncio.Task[None], Job] = {}
        self._claim_task: asyncio.Task[None] | None = None
        self._offered_models: Sequence[str] = ()
        self._claim_problem = ""
        """Why the last claim failed, unless that was an outage; empty if it has not."""

    def start(self) -> None:
        """Starts claiming jobs."""
        self._claim_task = asyncio.create_task(self._claim_loop())

    def check(self) -> None:
        """Raises Unavailable if the worker has stopped claiming jobs, or can't."""
        if self._claim_task is None or self._claim_task.done():
            raise Unavailable("the worker has stopped claiming jobs", reason="WORKER_STOPPED")
        if self._claim_problem:
            raise Unavailable(
                f"the worker can't claim jobs: {self._claim_problem}",
                reason="WORKER_STOPPED",
                retry_after_seconds=MAX_DELAY_SECONDS,
            )

    async def drain(self, grace_seconds: float) -> None:
        """Stops claiming, lets running jobs finish for `grace_seconds`, and hands the remaining ones back."""
        if self._claim_task is None:
            return
        self._claim_task.cancel()
        await asyncio.gather(self._claim_task, return_exceptions=True)
        for task, job in self._jobs.items():
            job.when_unreportable(task.cancel)  # Its lease will expire: there is no point in waiting for an outcome.
        if self._jobs:
            _, unfinished = await asyncio.wait(self._jobs, timeout=grace_seconds)
            for task in unfinished:
                self._jobs[task].hand_back()
        if self._jobs:
            # Unreachable storage must not block the shutdown: the leases expire on their own.
            _, unfinished = await asyncio.wait(self._jobs, timeout=SUSPEND_SECONDS + CALL_TIMEOUT_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def _claim_loop(self) -> None:
        backoff = Backoff(INITIAL_DELAY_SECONDS, MAX_DELAY_SECONDS, jitter=DELAY_JITTER)
        is_failing = False
        while True:
            await self._wait_for_slot()
            try:
                self._engine.check()
                claim = await self._claim()
                if claim.HasField("generation"):
                    await self._accept(claim)
            except UnrecoverableError:
                return  # This process cannot generate any more; leave the jobs to other workers.
            except Unavailable as error:
                problem, is_lasting = error.message, False
            except grpc.aio.AioRpcError as error:
                problem, is_lasting = read_error_details(error).message, error.code() in REJECTION_CODES
            except Exception as error:
                problem, is_lasting = format_error(error), True
                if not self._claim_problem:
                    log.error("unexpected_error", worker=self.id, exc_info=error)
            else:
                if is_failing:
                    log.info("claiming_resumed", worker=self.id)
                    backoff.reset()
                is_failing, self._claim_problem = False, ""
                continue
            if not is_failing:
                log.warning("claim_failed", worker=self.id, error=problem)
            is_failing, self._claim_problem = True, problem if is_lasting else ""
            await asyncio.sleep(backoff.next_delay())

    async def _wait_for_slot(self) -> None:
        while len(self._jobs) >= min(self._engine.capacity, self._settings.worker_slots or self._engine.capacity):
            self._slots_changed.clear()
            await self._slots_changed.wait()

    async def _claim(self) -> storage_pb2.ClaimGenerationResponse:
        """Returns a claimed job, or none. Raises AioRpcError if storage or export can't be reached."""
        await self._require_export()
        failpoint("generation.before_claim")
        self._offered_models = await self._engine.catalog.refresh_names()
        request = storage_pb2.ClaimGenerationRequest(
            worker_id=self.id,
            model_names=self._offered_models,
            lease_seconds=self._settings.lease_seconds,
            wait_seconds=CLAIM_WAIT_SECONDS,
        )
        # Wait for a storage service that is still starting: a refused connection would delay the first job.
        call = self._storage.ClaimGeneration(
            request, timeout=CLAIM_WAIT_SECONDS + CLAIM_TIMEOUT_MARGIN_SECONDS, wait_for_ready=True
        )
        answer = asyncio.ensure_future(call)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            await self._end_claim(call, answer)
            raise

    async def _end_claim(self, call: Any, answer: asyncio.Future[storage_pb2.ClaimGenerationResponse]) -> None:
        """Gives up a claim because the server drains, and hands back what it has got nevertheless."""
        with suppress(grpc.aio.AioRpcError):
            # Storage may have sent its answer while this process was stopped. It has been read when this one is.
            await self._storage_health.Check(health_pb2.HealthCheckRequest(), timeout=LAST_ANSWER_SECONDS)
        call.cancel()
        (claim,) = await asyncio.gather(answer, return_exceptions=True)
        if isinstance(claim, storage_pb2.ClaimGenerationResponse) and claim.HasField("generation"):
            await self._hand_back(claim, SHUTTING_DOWN)

    async def _accept(self, claim: storage_pb2.ClaimGenerationResponse) -> None:
        """Starts the job, or hands it back if export is away by now, or if the server drains. Raises AioRpcError if
        export can't be reached."""
        try:
            await self._require_export()  # The claim may have waited for seconds.
        except grpc.aio.AioRpcError as error:
            problem = f"export: {read_error_details(error).message} ({error.code().name})"
            await asyncio.shield(self._hand_back(claim, problem))
            raise
        except asyncio.CancelledError:
            await self._hand_back(claim, SHUTTING_DOWN)
            raise
        failpoint("generation.after_claim")
        self._start_job(claim)

    async def _require_export(self) -> None:
        """Raises AioRpcError if export can't be reached, or lacks what it needs: jobs would use up their attempts.

        If its disk is full, they do, so that whoever waits for them learns why.
        """
        try:
            await self._export.CheckOutput(export_pb2.CheckOutputRequest(), timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in TRANSIENT_CODES:
                raise

    async def _hand_back(self, claim: storage_pb2.ClaimGenerationResponse, problem: str) -> None:
        request = storage_pb2.FailGenerationRequest(
            id=claim.generation.id, lease_token=claim.lease_token, error_message=problem, handed_back=True
        )
        backoff = Backoff(*HAND_BACK_DELAYS)
        with suppress(TimeoutError):  # The lease will expire.
            async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                while True:
                    try:
                        await self._storage.FailGeneration(request)
                        return
                    except grpc.aio.AioRpcError as error:
                        if error.code() not in TRANSIENT_CODES:
                            return
                    await asyncio.sleep(backoff.next_delay())

    def _start_job(self, claim: storage_pb2.ClaimGenerationResponse) -> None:
        with bound_contextvars(generation_id=claim.generation.id, attempt=claim.generation.attempt):
            job = Job(self._engine, self._storage, self._export, claim, self._settings, self._offered_models)
            task = asyncio.create_task(job.run())  # The task's context is a copy that keeps the bound variables.
            task.add_done_callback(self._on_job_done)  # And so is the callback's.
        self._jobs[task] = job

    def _on_job_done(self, task: asyncio.Task[None]) -> None:
        del self._jobs[task]
        self._slots_changed.set()
        if not task.cancelled() and (error := task.exception()):
            log.error("job_crashed", exc_info=error)
