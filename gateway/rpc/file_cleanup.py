"""Deletes files from the library. Export selects the files; with an output, its generation is deleted from storage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio

from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.export.v1.export_pb2 import (
    CLEANUP_REASON_MISSING,
    CLEANUP_REASON_ORPHAN,
    FILE_CONDITION_MISSING,
    FILE_KIND_OUTPUT,
    FILE_KIND_RENDER,
    CleanupRequest,
    CleanupResponse,
    DeleteFileRequest,
    LibraryFile,
    ListFilesRequest,
    VerifyFilesRequest,
)
from dgx_music.storage.v1 import storage_pb2_grpc
from dgx_music.storage.v1.conditioning_pb2 import LINEAGE_RELATION_VARIATION
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_CANCELLED,
    GENERATION_STATE_PENDING,
    GENERATION_STATE_PROCESSING,
    DeleteGenerationRequest,
    Generation,
    GetGenerationRequest,
    ListGenerationsRequest,
)
from gateway.rpc.file_verification import verify_files
from gateway.rpc.service_client import ServiceClient

PAGE_SIZE = 500
MAX_CONCURRENT_LOOKUPS = 8
"""Generations that are looked up at the same time, few enough that storage's other callers are served in between."""
ORPHAN_GRACE_PERIOD = timedelta(hours=1)
"""A file younger than this is never treated as an orphan: its worker may not have reported it to storage yet."""


class FileCleanup:
    """One run of the Cleanup call."""

    def __init__(
        self,
        storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub],
        export: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
        request: CleanupRequest,
    ) -> None:
        self._storage, self._export, self._request = storage, export, request
        self._source_ids: set[str] = set()
        """Generations and clips whose audio an unfinished generation uses."""

    async def run(self) -> AsyncGenerator[CleanupResponse, None]:
        """Yields one response per file that is deleted, or in a dry run would be."""
        self._source_ids = await self._find_source_ids()
        orphan_ids = set()
        if self._request.orphans and (not self._request.kinds or FILE_KIND_OUTPUT in self._request.kinds):
            async with aclosing(self._find_orphans()) as orphans:
                async for file in orphans:
                    orphan_ids.add(file.generation_id)
                    yield await self._delete_unless_kept(CleanupResponse(file=file, reason=CLEANUP_REASON_ORPHAN))
        if self._request.missing:
            async with aclosing(self._find_missing()) as missing:
                async for file in missing:
                    yield await self._delete_unless_kept(CleanupResponse(file=file, reason=CLEANUP_REASON_MISSING))
        selection = CleanupRequest()
        selection.CopyFrom(self._request)
        selection.dry_run = True
        async with aclosing(self._export.call_server_stream(self._export.stub.Cleanup, selection)) as responses:
            async for response in responses:
                if response.file.kind != FILE_KIND_OUTPUT or response.file.generation_id not in orphan_ids:
                    yield await self._delete_unless_kept(response)
        if not self._request.dry_run:
            # Without a policy, export deletes only the folders that are empty, and reports nothing.
            empty_folders = self._export.call_server_stream(self._export.stub.Cleanup, CleanupRequest())
            async with aclosing(empty_folders) as responses:
                async for _ in responses:
                    pass

    async def _delete_unless_kept(self, response: CleanupResponse) -> CleanupResponse:
        """Deletes the file, and the generation of an output. Returns the response, with the reason if it was kept."""
        file = response.file
        if file.kind != FILE_KIND_RENDER and file.generation_id in self._source_ids:
            response.kept_because = response.kept_because or "an unfinished generation uses it"
        generation = await self._find_generation(file.generation_id) if file.kind == FILE_KIND_OUTPUT else None
        if generation is not None and generation.state in (GENERATION_STATE_PENDING, GENERATION_STATE_PROCESSING):
            response.kept_because = response.kept_because or "its generation is not finished"
        if response.kept_because or self._request.dry_run:
            return response
        deletion = DeleteFileRequest(generation_id=file.generation_id, render_id=file.render_id, only_if_unused=True)
        try:
            await self._export.call_unary(self._export.stub.DeleteFile, deletion)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                response.kept_because = error.details() or "it is in use"
                return response
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        if generation is not None and response.reason != CLEANUP_REASON_ORPHAN:
            # It may have been deleted or retried since it was looked up.
            with _ignore_status(grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                await self._storage.call_unary(
                    self._storage.stub.DeleteGeneration, DeleteGenerationRequest(id=generation.id)
                )
        return response

    async def _find_source_ids(self) -> set[str]:
        """Returns the ids of what the queue uses: storage has the queue, but only export has the files."""
        source_ids = set()
        request = ListGenerationsRequest(
            states=[GENERATION_STATE_PENDING, GENERATION_STATE_PROCESSING], page_size=PAGE_SIZE
        )
        while True:
            page = await self._storage.call_unary(self._storage.stub.ListGenerations, request)
            source_ids |= {
                parent.id
                for one in page.generations
                for parent in one.parents
                if parent.relation != LINEAGE_RELATION_VARIATION  # Which does not read the audio.
            }
            request.page_token = page.next_page_token
            if not request.page_token:
                return source_ids

    async def _find_orphans(self) -> AsyncGenerator[LibraryFile, None]:
        """Yields the outputs whose generation storage does not know, or which is CANCELLED: it will never have a file.
        One that FAILED may be retried."""
        newest = datetime.now(UTC) - ORPHAN_GRACE_PERIOD
        request = ListFilesRequest(kinds=[FILE_KIND_OUTPUT], page_size=PAGE_SIZE)
        while True:
            page = await self._export.call_unary(self._export.stub.ListFiles, request)
            candidates = [file for file in page.files if file.modified_at.ToDatetime(tzinfo=UTC) < newest]
            for start in range(0, len(candidates), MAX_CONCURRENT_LOOKUPS):
                batch = candidates[start : start + MAX_CONCURRENT_LOOKUPS]
                generations = await asyncio.gather(*(self._find_generation(file.generation_id) for file in batch))
                for file, generation in zip(batch, generations, strict=True):
                    if generation is None or generation.state == GENERATION_STATE_CANCELLED:
                        yield file
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    async def _find_missing(self) -> AsyncGenerator[LibraryFile, None]:
        """Yields the outputs of COMPLETED generations that are missing from the library."""
        request = VerifyFilesRequest(presence_only=True)
        async with aclosing(verify_files(self._storage, self._export, request)) as responses:
            async for response in responses:
                if response.condition == FILE_CONDITION_MISSING and not response.render_id:
                    yield LibraryFile(kind=FILE_KIND_OUTPUT, generation_id=response.generation_id)

    async def _find_generation(self, generation_id: str) -> Generation | None:
        with _ignore_status(grpc.StatusCode.NOT_FOUND):
            request = GetGenerationRequest(id=generation_id)
            return (await self._storage.call_unary(self._storage.stub.GetGeneration, request)).generation
        return None


@contextmanager
def _ignore_status(*codes: grpc.StatusCode) -> Iterator[None]:
    """Suppresses an AioRpcError that has one of these status codes."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() not in codes:
            raise
