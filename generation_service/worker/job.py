"""Runs one claimed generation, from the claim to its outcome in storage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from generation_service.config import GenerationSettings
from generation_service.engine.request_handle import GenerationHandle
from generation_service.processes.engine_pool import EnginePool
from generation_service.worker import converters
from generation_service.worker.audio_upload import AudioUpload
from generation_service.worker.backoff import Backoff
from generation_service.worker.converters import Exported
from generation_service.worker.export_calls import (
    DELETION_PATIENCE_SECONDS,
    INITIAL_DELAY_SECONDS,
    MAX_DELAY_SECONDS,
    TRANSIENT_CODES,
    delete_audio,
    discard_samples,
    export_server,
    resume_export,
)
from generation_service.worker.export_stream import ExportStream
from generation_service.worker.job_audio import start_job_audio
from generation_service.worker.job_failure import build_failure
from generation_service.worker.lease import CALL_TIMEOUT_SECONDS, LEASE_LOST_CODES, Lease, LeaseLostReason
from service_runtime.failpoints import failpoint
from service_runtime.observability.logging import get_logger
from service_runtime.observability.tracing import Tracer

if TYPE_CHECKING:
    from dgx_music.export.v1.export_pb2_grpc import ExportServiceAsyncStub as ExportStub

log = get_logger(__name__)

TRACER = Tracer("generation")

SUSPEND_SECONDS = 5.0
"""How long a job that is handed back may take to stop with what was done; then it is handed back without that."""
MIN_CALL_TIMEOUT_SECONDS = 0.1
"""The timeout of a call that starts when the lease has almost expired."""


class Job:
    """Generates the audio, streams it to the export service meanwhile, and reports the outcome to storage.

    Stops the engine's request at once when the lease is lost.
    """

    def __init__(
        self,
        engine: EnginePool,
        storage: storage_pb2_grpc.StorageServiceAsyncStub,
        export: ExportStub,
        claim: storage_pb2.ClaimGenerationResponse,
        settings: GenerationSettings,
        model_names: Sequence[str] = (),
    ) -> None:
        """`model_names`: what the worker has claimed, and so can do instead of this job."""
        self._engine = engine
        self._storage = storage
        self._export = export
        self._generation, self._checkpoint, self._weight = claim.generation, claim.checkpoint, claim.weight or 1.0
        self._model_names = model_names
        self._preempted_by = ""
        self._settings = settings
        self._started_at = time.monotonic()
        self._lease = Lease(
            storage,
            claim.generation.id,
            claim.lease_token,
            seconds=settings.lease_seconds,
            renew_interval_seconds=settings.renew_interval_seconds,
        )
        self._handle: GenerationHandle | None = None
        self._has_sent_audio = False
        """Whether the export service may have all the audio, so that it may create a file."""
        self._trace_parent = claim.trace_parent
        self._export_task: asyncio.Task[Exported]
        """Created by the first step of `run`, so that it is part of the job's trace."""

    async def run(self) -> None:
        """Returns once storage knows the outcome, or once the lease is lost."""
        generation = self._generation
        attributes: dict[str, str | int | float] = {"generation_id": generation.id, "attempt": generation.attempt}
        attributes |= {"model": generation.model_name, "duration_seconds": generation.duration_seconds}
        if self._trace_parent and generation.attempt == 1:
            waited_seconds = max(0.0, time.time() - generation.created_at.ToMicroseconds() / 1e6)
            TRACER.record("wait for worker", self._started_at - waited_seconds, self._started_at, self._trace_parent)
        with TRACER.span("job", attributes, trace_parent=self._trace_parent) as span:
            outcome = await self._run()
            if span is not None:
                span.set_attribute("outcome", outcome)

    async def _run(self) -> str:
        self._export_task = asyncio.create_task(self._resume_or_generate())
        renewal_task = asyncio.create_task(self._lease.renew_until_lost(self._current_progress))
        try:
            await asyncio.wait({renewal_task, self._export_task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            renewal_task.cancel()
            self._export_task.cancel()
            lost, exported = await asyncio.gather(renewal_task, self._export_task, return_exceptions=True)
        if isinstance(lost, Exception) and not isinstance(exported, Exported):
            exported = lost  # The attempt was ended because the renewal had failed unexpectedly.
        outcome = await self._report_outcome(exported, lost)
        seconds = time.monotonic() - self._started_at
        handle = self._handle
        audio_seconds = handle.frames_delivered / handle.info.sample_rate_hz if handle else 0.0
        log.info(
            "job_ended",
            outcome=outcome,
            model=self._generation.model_name,
            audio_seconds=round(audio_seconds, 3),
            seconds=round(seconds, 3),
            times_real_time=round(audio_seconds / seconds, 2),
        )
        return outcome

    def when_unreportable(self, action: Callable[[], object]) -> None:
        """Calls `action` once storage answers that it can't record anything, and so no outcome of this job either."""
        self._lease.when_unwritable(action)

    def hand_back(self, preempted_by: str = "") -> None:
        """Stops the job and returns it to storage, with what was done of it, for another worker: because the server is
        shutting down, or for the generation `preempted_by`."""
        if preempted_by and self._has_sent_audio:
            return  # It ends by itself.
        self._preempted_by = preempted_by
        if self._handle is None or not self._handle.is_started or self._has_sent_audio:
            self._export_task.cancel()
            return
        self._handle.suspend()
        asyncio.get_running_loop().call_later(SUSPEND_SECONDS, self._export_task.cancel)

    def _current_progress(self) -> tuple[storage_pb2.GenerationStage, float]:
        if self._has_sent_audio:
            return storage_pb2.GENERATION_STAGE_EXPORTING, 1.0
        if self._handle is None:
            return storage_pb2.GENERATION_STAGE_QUEUED, 0.0
        return converters.STAGE_TO_PROTO[self._handle.stage], self._handle.progress

    async def _resume_or_generate(self) -> Exported:
        generation = self._generation
        if generation.attempt > 1:
            async with export_server(generation.export_address, self._export, self._settings) as export:
                if generation.export_address and generation.attempt >= generation.max_attempts:
                    # That server may be what failed. The last attempt does not depend on it.
                    await discard_samples(generation.id, export)
                    return await self._generate_and_export(self._export)
                response = await self._resume_export(export)
                if response is not None and response.HasField("file"):
                    return Exported(response.header, response.file)
                if response is not None:
                    return await self._generate_and_export(export, response.suspended_frames)
        return await self._generate_and_export(self._export)

    async def _resume_export(self, export: ExportStub) -> export_pb2.ResumeExportResponse | None:
        self._has_sent_audio = True
        response = await resume_export(
            export,
            export_pb2.ResumeExportRequest(generation_id=self._generation.id, attempt=self._generation.attempt),
            self._settings.job_seconds,
            on_address=self._lease.set_export_address,
            may_be_gone=bool(self._generation.export_address),
        )
        self._has_sent_audio = response is not None and response.HasField("file")
        return response

    async def _generate_and_export(self, export: ExportStub, kept_frames: int = 0) -> Exported:
        audio = await start_job_audio(
            self._generation,
            self._engine,
            self._export,
            source_timeout_seconds=self._settings.job_seconds,
            checkpoint=self._checkpoint,
            weight=self._weight,
        )
        self._handle = handle = audio.handle
        try:
            await handle.wait_until_started()
            self._lease.offer(self._model_names, self.hand_back)
            stream = ExportStream(export, self._settings.job_seconds, self._lease.set_export_address)
            try:
                return await AudioUpload(self._generation, audio, stream, kept_frames, self._note_sent).run()
            finally:
                stream.cancel()
        finally:
            handle.cancel()

    def _note_sent(self) -> None:
        self._has_sent_audio = True

    async def _report_outcome(self, exported: Exported | BaseException, lost: LeaseLostReason | BaseException) -> str:
        """Reports the outcome to storage, unless the lease is lost. Returns it in words, for the log."""
        if not isinstance(lost, LeaseLostReason):
            await self._lease.report_export_address(*self._current_progress())
        if isinstance(exported, Exported):
            return await self._complete(exported)
        if isinstance(lost, LeaseLostReason):
            return await self._end_without_lease(lost)
        return await self._fail(
            build_failure(
                exported,
                has_sent_audio=self._has_sent_audio,
                attempt=self._generation.attempt,
                preempted_by=self._preempted_by,
            )
        )

    async def _complete(self, exported: Exported) -> str:
        request = converters.build_completion(
            self._generation, self._lease.token, exported, time.monotonic() - self._started_at
        )
        failpoint("generation.before_complete")
        try:
            await self._call_with_retry(self._storage.CompleteGeneration, request)
        except grpc.aio.AioRpcError as error:
            if error.code() in LEASE_LOST_CODES:
                return await self._end_without_lease(LeaseLostReason.STALE)
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                # The next attempt finds the samples at export, and generates nothing.
                log.warning("completion_failed", code=error.code().name, error=error.details())
                return await self._end_without_lease(LeaseLostReason.EXPIRED)
            await self._delete_file()  # No database row will refer to it.
            message = f"storage rejected the completion: {read_error_details(error).message}"
            return await self._fail(storage_pb2.FailGenerationRequest(error_message=message))
        failpoint("generation.after_complete")
        return "completed"

    async def _fail(self, failure: storage_pb2.FailGenerationRequest) -> str:
        log.warning("attempt_failed", error=failure.error_message, retryable=failure.retryable or failure.handed_back)
        failure.id, failure.lease_token = self._generation.id, self._lease.token
        failpoint("generation.before_fail")
        try:
            await self._call_with_retry(self._storage.FailGeneration, failure)
        except grpc.aio.AioRpcError as error:
            if error.code() in LEASE_LOST_CODES:
                return await self._end_without_lease(LeaseLostReason.STALE)
            # The lease will expire, and storage then gives the generation to another worker.
            log.warning("failure_report_failed", code=error.code().name, error=error.details())
        return "handed back" if failure.handed_back else "failed"

    async def _end_without_lease(self, lost: LeaseLostReason) -> str:
        """Deletes the audio, also of an earlier attempt, if no other one needs it. Returns the outcome in words."""
        may_have_file = self._has_sent_audio or self._generation.attempt > 1
        if lost is not LeaseLostReason.CANCELLED and (not may_have_file or not await self._is_cancelled()):
            return str(lost.value)
        if may_have_file:
            await self._delete_file()
        return LeaseLostReason.CANCELLED.value

    async def _call_with_retry(self, method: Any, request: Any) -> None:
        """Calls storage, and retries transient errors until the lease expires. Raises AioRpcError."""
        backoff = Backoff(INITIAL_DELAY_SECONDS, MAX_DELAY_SECONDS)
        while True:
            timeout_seconds = max(MIN_CALL_TIMEOUT_SECONDS, min(CALL_TIMEOUT_SECONDS, self._lease.seconds_remaining))
            try:
                await method(request, timeout=timeout_seconds)
                return
            except grpc.aio.AioRpcError as error:
                self._lease.note_failure(error)
                if error.code() not in TRANSIENT_CODES or self._lease.seconds_remaining <= backoff.next_seconds:
                    raise
            await asyncio.sleep(backoff.next_delay())

    async def _is_cancelled(self) -> bool:
        """Whether the generation is cancelled or deleted, so that no other attempt needs its file.

        If storage can't be reached, waits for it for a while: the answer decides over a file.
        """
        request = storage_pb2.GetGenerationRequest(id=self._generation.id)
        backoff = Backoff(INITIAL_DELAY_SECONDS, MAX_DELAY_SECONDS)
        gives_up_at = time.monotonic() + DELETION_PATIENCE_SECONDS
        while True:
            try:
                response = await self._storage.GetGeneration(request, timeout=CALL_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() not in TRANSIENT_CODES or time.monotonic() >= gives_up_at:
                    return error.code() is grpc.StatusCode.NOT_FOUND
                log.info("deletion_delayed", code=error.code().name, error=error.details())
                await asyncio.sleep(backoff.next_delay())
            else:
                return response.generation.state == storage_pb2.GENERATION_STATE_CANCELLED

    async def _delete_file(self) -> None:
        """Deletes the file, and the samples of an export that did not make one."""
        address = self._lease.export_address or self._generation.export_address
        async with export_server(address, self._export, self._settings) as export:
            await delete_audio(self._generation.id, export, self._export)
