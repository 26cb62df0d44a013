"""Making room: export says which files go, and with an output its generation's row goes at storage."""

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
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_PENDING,
    GENERATION_STATE_PROCESSING,
    DeleteGenerationRequest,
    Generation,
    GetGenerationRequest,
    ListGenerationsRequest,
)
from gateway.rpc.file_verification import verify
from gateway.rpc.service_client import Upstream

PAGE = 500
AT_ONCE = 8
"""Rows that are looked for at a time: storage's other callers find it free in between."""
GRACE = timedelta(hours=1)
"""A file that landed later is never taken for one of no generation."""


class Cleaner:
    """One cleaning up."""

    def __init__(
        self,
        storage: Upstream[storage_pb2_grpc.StorageServiceAsyncStub],
        export: Upstream[export_pb2_grpc.ExportServiceAsyncStub],
        request: CleanupRequest,
    ) -> None:
        self._storage, self._export, self._request = storage, export, request
        self._sources: set[str] = set()
        """What generations that are not made yet go on from."""

    async def run(self) -> AsyncGenerator[CleanupResponse, None]:
        """An answer for each file that goes, or would."""
        self._sources = await self._find_sources()
        told = set()
        if self._request.orphans and (not self._request.kinds or FILE_KIND_OUTPUT in self._request.kinds):
            async with aclosing(self._orphans()) as orphans:
                async for file in orphans:
                    told.add(file.generation_id)
                    yield await self._done(CleanupResponse(file=file, reason=CLEANUP_REASON_ORPHAN))
        if self._request.missing:
            async with aclosing(self._missing()) as missing:
                async for file in missing:
                    yield await self._done(CleanupResponse(file=file, reason=CLEANUP_REASON_MISSING))
        chosen = CleanupRequest()
        chosen.CopyFrom(self._request)
        chosen.dry_run = True
        async with aclosing(self._export.stream(self._export.stub.Cleanup, chosen)) as responses:
            async for response in responses:
                if response.file.kind != FILE_KIND_OUTPUT or response.file.generation_id not in told:
                    yield await self._done(response)
        if not self._request.dry_run:
            async with aclosing(self._export.stream(self._export.stub.Cleanup, CleanupRequest())) as responses:
                async for _ in responses:  # None: without a policy only the empty folders go.
                    pass

    async def _done(self, response: CleanupResponse) -> CleanupResponse:
        """What became of the file, where it was not found to be in use already."""
        file = response.file
        if file.kind != FILE_KIND_RENDER and file.generation_id in self._sources:
            response.kept_because = response.kept_because or "a generation that is not made yet goes on from it"
        row = await self._row(file.generation_id) if file.kind == FILE_KIND_OUTPUT else None
        if row is not None and row.state in (GENERATION_STATE_PENDING, GENERATION_STATE_PROCESSING):
            response.kept_because = response.kept_because or "its generation is being made"
        if response.kept_because or self._request.dry_run:
            return response
        going = DeleteFileRequest(generation_id=file.generation_id, render_id=file.render_id, only_if_unused=True)
        try:
            await self._export.ask(self._export.stub.DeleteFile, going)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                response.kept_because = error.details() or "it is in use"
                return response
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        if row is not None:
            with _ignored(grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):  # Deleted, or tried again.
                await self._storage.ask(self._storage.stub.DeleteGeneration, DeleteGenerationRequest(id=row.id))
        return response

    async def _find_sources(self) -> set[str]:
        """Only storage knows the queue, and export the files: so what has to stay is named here."""
        sources = set()
        pages = ListGenerationsRequest(states=[GENERATION_STATE_PENDING, GENERATION_STATE_PROCESSING], page_size=PAGE)
        while True:
            page = await self._storage.ask(self._storage.stub.ListGenerations, pages)
            sources |= {one.continuation.source_id for one in page.generations if one.HasField("continuation")}
            pages.page_token = page.next_page_token
            if not pages.page_token:
                return sources

    async def _orphans(self) -> AsyncGenerator[LibraryFile, None]:
        """Outputs of no generation that storage knows."""
        before = datetime.now(UTC) - GRACE
        pages = ListFilesRequest(kinds=[FILE_KIND_OUTPUT], page_size=PAGE)
        while True:
            page = await self._export.ask(self._export.stub.ListFiles, pages)
            old = [file for file in page.files if file.modified_at.ToDatetime(tzinfo=UTC) < before]
            for start in range(0, len(old), AT_ONCE):
                some = old[start : start + AT_ONCE]
                rows = await asyncio.gather(*(self._row(file.generation_id) for file in some))
                for file, row in zip(some, rows, strict=True):
                    if row is None:
                        yield file
            pages.page_token = page.next_page_token
            if not pages.page_token:
                return

    async def _missing(self) -> AsyncGenerator[LibraryFile, None]:
        """The files that are not there of generations that are COMPLETED."""
        looking = VerifyFilesRequest(presence_only=True)
        async with aclosing(verify(self._storage, self._export, looking)) as responses:
            async for response in responses:
                if response.condition == FILE_CONDITION_MISSING and not response.render_id:
                    yield LibraryFile(kind=FILE_KIND_OUTPUT, generation_id=response.generation_id)

    async def _row(self, generation_id: str) -> Generation | None:
        with _ignored(grpc.StatusCode.NOT_FOUND):
            found = await self._storage.ask(self._storage.stub.GetGeneration, GetGenerationRequest(id=generation_id))
            return found.generation
        return None


@contextmanager
def _ignored(*codes: grpc.StatusCode) -> Iterator[None]:
    """A refusal with one of these codes ends the block, and nothing more."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() not in codes:
            raise
