"""Deletes the files of generations that are cancelled or deleted, later if export can't do it now."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from dgx_music.errors import Unavailable
from dgx_music.export.v1.export_pb2 import DeleteFileRequest
from gateway.rpc.export_servers import ExportServers
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

RETRY_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""The pauses before further tries. An export that runs ends within the first of them, as its worker is told."""


class FileDeletion:
    """Its retries end with the gateway; `files cleanup --orphans` deletes what is left then, and samples expire."""

    def __init__(self, servers: ExportServers) -> None:
        self._servers = servers
        self._retries: set[asyncio.Task[None]] = set()

    async def delete(self, generation_id: str, export_address: str) -> None:
        """Deletes the file and the samples, if there are any; the samples are at `export_address`, if that is not
        empty. If only the file can be deleted now, the samples are later. Raises the errors of a call to export.
        """
        if export_address:
            try:
                await self._delete_at(export_address, generation_id)
                return
            except Unavailable:
                self._retry_later(export_address, generation_id)
        await self._delete_at("", generation_id)

    async def delete_for_good(self, generation_id: str, export_address: str) -> None:
        """Deletes the file of a generation that will never have one again. If that fails, because it is still being
        exported or because export can't be reached, tries again in the background."""
        try:
            await self.delete(generation_id, export_address)
        except (grpc.aio.AioRpcError, Unavailable):
            self._retry_later(export_address, generation_id)

    async def stop(self) -> None:
        """Gives up what has not been deleted yet."""
        for retry in self._retries:
            retry.cancel()
        await asyncio.gather(*self._retries, return_exceptions=True)

    async def _delete_at(self, address: str, generation_id: str) -> None:
        try:
            async with self._servers.at(address) as export:
                await export.call_unary(export.stub.DeleteFile, DeleteFileRequest(generation_id=generation_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    def _retry_later(self, address: str, generation_id: str) -> None:
        retry = asyncio.create_task(self._retry(address, generation_id))
        self._retries.add(retry)
        retry.add_done_callback(self._retries.discard)

    async def _retry(self, address: str, generation_id: str) -> None:
        for seconds in RETRY_SECONDS:
            await asyncio.sleep(seconds)
            try:
                await self._delete_at(address, generation_id)
            except (grpc.aio.AioRpcError, Unavailable) as error:
                reason = error.details() if isinstance(error, grpc.aio.AioRpcError) else error.message
            else:
                return
        log.warning("orphaned_file_left", error=reason)
