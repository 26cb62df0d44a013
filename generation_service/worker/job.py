"""One claimed generation, from the claim to its end in storage."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import grpc
import grpc.aio

from dgx_music.errors import InvalidArgument, ServiceError
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.pcm import PcmWriter
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from generation_service.config import GenerationSettings
from generation_service.engine.engine import Engine
from generation_service.engine.request_handle import GenerationHandle
from generation_service.models.base import TooLarge
from generation_service.models.params import parameters
from generation_service.worker import converters
from generation_service.worker.continuation_audio import prompt_audio
from generation_service.worker.export_stream import Upload
from generation_service.worker.lease import CALL_SECONDS, REFUSALS, Lease, Loss
from service_runtime.observability.logging import get_logger
from service_runtime.supervision import UnrecoverableError

log = get_logger(__name__)

RETRYABLE = frozenset({"ABORTED", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"})
"""Names of the status codes after which another attempt may succeed."""
TRANSIENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 2.0


class Job:
    """Makes the audio, streams it to export while it is made, and tells storage what came of it.

    Stops the engine at once when the lease is lost.
    """

    def __init__(
        self,
        engine: Engine,
        storage: storage_pb2_grpc.StorageServiceAsyncStub,
        export: export_pb2_grpc.ExportServiceAsyncStub,
        claim: storage_pb2.ClaimGenerationResponse,
        settings: GenerationSettings,
    ) -> None:
        self._engine = engine
        self._storage = storage
        self._export = export
        self._generation = claim.generation
        self._longest_seconds = settings.job_seconds
        self._began = time.monotonic()
        self._lease = Lease(
            storage,
            claim.generation.id,
            claim.lease_token,
            seconds=settings.lease_seconds,
            renew_interval_seconds=settings.renew_interval_seconds,
        )
        self._handle: GenerationHandle | None = None
        self._is_sent = False
        """Whether export has all the audio, so that a file may land."""
        self._making = asyncio.create_task(self._make())

    async def run(self) -> None:
        """Returns when storage knows the end, or when the generation is no longer ours."""
        keeping = asyncio.create_task(self._lease.keep(self._report))
        try:
            await asyncio.wait({keeping, self._making}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            keeping.cancel()
            self._making.cancel()
            lost, made = await asyncio.gather(keeping, self._making, return_exceptions=True)
        outcome = await self._settle(made, lost)
        seconds = time.monotonic() - self._began
        audio_seconds = self._handle.frames_made / self._handle.info.sample_rate_hz if self._handle else 0.0
        log.info(
            "job ended",
            outcome=outcome,
            model=self._generation.model_name,
            audio_seconds=round(audio_seconds, 3),
            seconds=round(seconds, 3),
            times_real_time=round(audio_seconds / seconds, 2),
        )

    def hand_back(self) -> None:
        """Stops the work and has storage give it to another worker: the server is shutting down."""
        self._making.cancel()

    def _report(self) -> tuple[storage_pb2.GenerationStage, float]:
        if self._handle is None:
            return storage_pb2.GENERATION_STAGE_QUEUED, 0.0
        if self._is_sent:
            return storage_pb2.GENERATION_STAGE_EXPORTING, 1.0
        return converters.STAGES[self._handle.stage], self._handle.progress

    async def _make(self) -> export_pb2.ExportResponse:
        self._handle = handle = await self._submit()
        try:
            await handle.started()
            upload = Upload(self._export, self._longest_seconds)
            try:
                return await self._send(handle, upload)
            finally:
                upload.cancel()
        finally:
            handle.cancel()

    async def _submit(self) -> GenerationHandle:
        generation = self._generation
        info = await self._engine.catalog.describe(generation.model_name)
        for field, asked, made in (
            ("sample_rate_hz", generation.sample_rate_hz, info.sample_rate_hz),
            ("channels", generation.channels, info.channels),
        ):
            if asked != made:
                raise InvalidArgument(field, f"must be {made} for model {info.name!r}, not {asked}")
        asked_for = parameters(
            info,
            generation.prompt,
            generation.duration_seconds,
            generation.seed,
            converters.sampling(generation.sampling),
        )
        if generation.HasField("continuation"):
            heard = await prompt_audio(generation.continuation, info, self._engine.catalog, self._export)
            asked_for = replace(asked_for, prompt_audio=heard)
        return self._engine.submit(info, asked_for)

    async def _send(self, handle: GenerationHandle, upload: Upload) -> export_pb2.ExportResponse:
        writer = PcmWriter(handle.info.channels)
        await upload.header(converters.export_header(self._generation, handle))
        async for block in handle:
            for chunk in writer.chunks(converters.pcm(block)):
                await upload.chunk(chunk)
        self._is_sent = True
        return await upload.finish(writer.end())

    async def _settle(self, made: export_pb2.ExportResponse | BaseException, lost: Loss | BaseException) -> str:
        if isinstance(made, export_pb2.ExportResponse):
            return await self._complete(made)
        if isinstance(lost, Loss):
            if lost is Loss.CANCELLED and self._is_sent:
                await self._delete_file()
            return lost.value
        return await self._fail(_failure(made))

    async def _complete(self, exported: export_pb2.ExportResponse) -> str:
        assert self._handle is not None
        request = converters.completion(
            self._generation, self._lease.token, self._handle, exported, time.monotonic() - self._began
        )
        try:
            await self._insist(self._storage.CompleteGeneration, request)
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSALS:
                if await self._is_cancelled():
                    await self._delete_file()
                    return Loss.CANCELLED.value
                return Loss.STALE.value
            if error.code() in TRANSIENT:
                return Loss.EXPIRED.value
            await self._delete_file()  # No row will name it.
            refusal = f"storage did not take the completion: {error.details()}"
            return await self._fail(storage_pb2.FailGenerationRequest(error_message=refusal))
        return "completed"

    async def _fail(self, failure: storage_pb2.FailGenerationRequest) -> str:
        log.warning("attempt ended", error=failure.error_message, retryable=failure.retryable or failure.handed_back)
        failure.id, failure.lease_token = self._generation.id, self._lease.token
        try:
            await self._insist(self._storage.FailGeneration, failure)
        except grpc.aio.AioRpcError as error:
            if error.code() in REFUSALS:
                return Loss.STALE.value
            # The lease ends by itself, and storage gives the generation to another worker.
            log.warning("failure not told", code=error.code().name, error=error.details())
        return "handed back" if failure.handed_back else "failed"

    async def _insist(self, method: Any, request: Any) -> None:
        """Calls storage until it answers or the lease ends. Raises AioRpcError."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                await method(request, timeout=min(CALL_SECONDS, max(FIRST_PAUSE_SECONDS, self._lease.seconds_left)))
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in TRANSIENT or self._lease.seconds_left <= pause:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _is_cancelled(self) -> bool:
        """Whether nobody will make this generation any more, so that a file of it is nobody's."""
        request = storage_pb2.GetGenerationRequest(id=self._generation.id)
        try:
            answer = await self._storage.GetGeneration(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.NOT_FOUND
        return answer.generation.state == storage_pb2.GENERATION_STATE_CANCELLED

    async def _delete_file(self) -> None:
        request = export_pb2.DeleteFileRequest(generation_id=self._generation.id)
        try:
            await self._export.DeleteFile(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                log.warning("file left that no row names", code=error.code().name, error=error.details())


def _failure(error: BaseException) -> storage_pb2.FailGenerationRequest:
    """What to tell the person who asked, in one line, and whether another attempt may succeed."""
    match error:
        case asyncio.CancelledError():
            return storage_pb2.FailGenerationRequest(error_message="the server is shutting down", handed_back=True)
        case UnrecoverableError():
            # It came when there was no engine any more: not an attempt.
            return storage_pb2.FailGenerationRequest(error_message=error.message, handed_back=True)
        case TooLarge():
            # It would be too large at the next attempt as well; a person may retry it where there is more memory.
            message, is_retryable = error.message, False
        case ServiceError():
            message, is_retryable = error.message, error.code in RETRYABLE
        case grpc.aio.AioRpcError():
            details = " ".join((error.details() or "no answer").split())
            message, is_retryable = f"export: {details} ({error.code().name})", error.code().name in RETRYABLE
        case _:
            log.error("unforeseen error", exc_info=error)
            message, is_retryable = f"an unforeseen error: {type(error).__name__}", False
    return storage_pb2.FailGenerationRequest(error_message=message, retryable=is_retryable)
