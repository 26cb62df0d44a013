"""Deletes the files of generations that are cancelled or deleted, later if export can't do it now."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from dgx_music.errors import Unavailable
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.export.v1.export_pb2 import DeleteFileRequest
from gateway.rpc.service_client import ServiceClient
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""The pauses before further tries. An export that runs ends within the first of them, as its worker is told."""


class FileDeletion:
    """Its retries end with the gateway; `files cleanup --orphans` deletes what is left then."""

    def __init__(self, export_client: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub]) -> None:
        self._export = export_client
        self._retries: set[asyncio.Task[None]] = set()

    async def delete(self, generation_id: str) -> None:
        """Deletes the file and the samples, if there are any. Raises the errors of a call to export."""
        try:
            await self._export.call_unary(self._export.stub.DeleteFile, DeleteFileRequest(generation_id=generation_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    async def delete_for_good(self, generation_id: str) -> None:
        """Deletes the file of a generation that will never have one again. If that fails, because it is still being
        exported or because export can't be reached, tries again in the background."""
        try:
            await self.delete(generation_id)
        except (grpc.aio.AioRpcError, Unavailable):
            retry = asyncio.create_task(self._retry(generation_id))
            self._retries.add(retry)
            retry.add_done_callback(self._retries.discard)

    async def stop(self) -> None:
        """Gives up what has not been deleted yet."""
        for retry in self._retries:
            retry.cancel()
        await asyncio.gather(*self._retries, return_exceptions=True)

    async def _retry(self, generation_id: str) -> None:
        for seconds in RETRY_SECONDS:
            await asyncio.sleep(seconds)
            try:
                await self.delete(generation_id)
            except (grpc.aio.AioRpcError, Unavailable) as error:
                reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else error.message
            else:
                return
        log.warning("orphaned_file_left", error=reason)
