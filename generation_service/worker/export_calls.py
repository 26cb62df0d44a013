"""Calls of the export server that has the samples of an earlier attempt, of several the one that received them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from dgx_music.error_status import status_of
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from generation_service.worker.backoff import Backoff
from generation_service.worker.export_stream import locate_server
from generation_service.worker.job_failure import RETRYABLE_EXPORT_CODES
from generation_service.worker.lease import CALL_TIMEOUT_SECONDS
from service_runtime.access.service_channel import connect_service
from service_runtime.observability.logging import get_logger
from service_runtime.settings import Settings

log = get_logger(__name__)

TRANSIENT_CODES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""Status codes after which the same call to storage or export is retried. A call that this process cancels raises
CancelledError; CANCELLED comes from a server that stops."""
INITIAL_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.1, 2.0
"""The delays between such retries."""
DELETION_PATIENCE_SECONDS = 60.0
"""For how long the deletion of a file that nobody needs is retried while export is away."""


@asynccontextmanager
async def export_server(
    address: str, any_server: export_pb2_grpc.ExportServiceAsyncStub, settings: Settings
) -> AsyncIterator[export_pb2_grpc.ExportServiceAsyncStub]:
    """Gives the export server at the address, or `any_server` if that is empty."""
    if not address:
        yield any_server
        return
    channel = connect_service(address, settings)
    try:
        yield export_pb2_grpc.ExportServiceStub(channel)
    finally:
        await channel.close()


async def resume_export(
    export: export_pb2_grpc.ExportServiceAsyncStub,
    request: export_pb2.ResumeExportRequest,
    timeout_seconds: float,
    *,
    on_address: Callable[[str], object],
    may_be_gone: bool,
) -> export_pb2.ResumeExportResponse | None:
    """Has export make the file from the audio of an earlier attempt. Returns None if it has none of it; the response
    has no file if the attempt was suspended before its audio was complete.

    `on_address` is called with where the server is, if it says so. With `may_be_gone`, a server that can't be reached
    has no audio either: another one receives all of it anew. Raises AioRpcError if a later attempt may find the audio.
    """
    call = export.ResumeExport(request, timeout=timeout_seconds)
    addresses: list[str] = []
    locating = asyncio.create_task(locate_server(call, addresses.append))
    locating.add_done_callback(lambda _: [on_address(address) for address in addresses])
    try:
        response = await call
    except grpc.aio.AioRpcError as error:
        is_unreachable = error.code() is grpc.StatusCode.UNAVAILABLE and status_of(error) is None and not addresses
        if error.code().name in RETRYABLE_EXPORT_CODES and not (may_be_gone and is_unreachable):
            raise
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            log.warning("resume_failed", code=error.code().name, error=error.details())
        return None
    finally:
        locating.cancel()
    log.info("export_resumed", frames=response.file.frames or response.suspended_frames)
    return response


async def delete_audio(
    generation_id: str,
    export: export_pb2_grpc.ExportServiceAsyncStub,
    other_server: export_pb2_grpc.ExportServiceAsyncStub,
) -> None:
    """Deletes the file of a generation, and the samples that the server has. If it is away, tries the other in turn."""
    request = export_pb2.DeleteFileRequest(generation_id=generation_id)
    backoff = Backoff(INITIAL_DELAY_SECONDS, MAX_DELAY_SECONDS)
    gives_up_at = time.monotonic() + DELETION_PATIENCE_SECONDS
    while True:
        try:
            await export.DeleteFile(request, timeout=CALL_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            # Export may not have noticed yet that the call has been cancelled.
            is_busy = error.code() is grpc.StatusCode.FAILED_PRECONDITION
            if is_busy and backoff.next_seconds < MAX_DELAY_SECONDS:
                await asyncio.sleep(backoff.next_delay())
                continue
            if error.code() in TRANSIENT_CODES and time.monotonic() < gives_up_at:
                log.info("deletion_delayed", code=error.code().name, error=error.details())
                export, other_server = other_server, export
                await asyncio.sleep(backoff.next_delay())
                continue
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                # An audio file without a database row stays in the library.
                log.warning("orphaned_file_left", code=error.code().name, error=error.details())
        return


async def discard_samples(generation_id: str, export: export_pb2_grpc.ExportServiceAsyncStub) -> None:
    """Deletes the samples that the server has of an earlier attempt. If that fails, they expire there."""
    request = export_pb2.DeleteFileRequest(generation_id=generation_id, only_samples=True)
    try:
        await export.DeleteFile(request, timeout=CALL_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        log.warning("samples_left", code=error.code().name, error=error.details())
