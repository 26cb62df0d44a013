"""Edits the tags of a finished file: export writes the file, then storage records its new size and hash."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

import grpc
import grpc.aio

from dgx_music.error_status import read_error_details
from dgx_music.errors import FailedPrecondition
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.export.v1.export_pb2 import EditTagsRequest, EditTagsResponse, ProvenanceMark
from dgx_music.storage.v1 import storage_pb2_grpc
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_COMPLETED,
    GenerationState,
    GetGenerationRequest,
    UpdateFileRequest,
)
from gateway.rpc.file_verification import recorded_sha256
from gateway.rpc.service_client import ServiceClient
from gateway.timeouts import RENDER_TIMEOUT_SECONDS
from service_runtime.observability.logging import get_logger
from service_runtime.validation import check_uuid

log = get_logger(__name__)


class TagEditing:
    """Used on the event loop only. Edits of one generation follow one another, so that storage has the hash of the last
    one. If another gateway edits it at the same time, the edit that comes to storage last is repeated. After a crash
    between the two steps, the file is reported as changed until an edit is repeated.
    """

    def __init__(
        self,
        storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub],
        export: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
    ) -> None:
        self._storage, self._export = storage, export
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[EditTagsResponse]] = set()

    async def edit(self, request: EditTagsRequest) -> EditTagsResponse:
        """Returns export's response. Once started, an edit is completed even if the caller has gone.

        Raises FailedPrecondition unless the generation is COMPLETED, and the errors of both services.
        """
        task = asyncio.create_task(self._edit(request))
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return await asyncio.shield(task)

    def _on_done(self, task: asyncio.Task[EditTagsResponse]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # The caller may have gone.
            log.info("tag_edit_failed", error=str(error))

    async def _edit(self, request: EditTagsRequest) -> EditTagsResponse:
        generation_id = check_uuid("generation_id", request.generation_id)
        async with self._locks.setdefault(generation_id, asyncio.Lock()):
            while True:
                recorded_sha256 = await self._read_completed(generation_id)
                response = await self._export.call_unary(self._export.stub.EditTags, request, RENDER_TIMEOUT_SECONDS)
                if request.render_id or await self._record(generation_id, response, recorded_sha256):
                    return response

    async def _record(self, generation_id: str, edited: EditTagsResponse, previous_sha256: str) -> bool:
        """Returns False if another gateway has recorded an edit since `previous_sha256` was read. Which of the two is
        in the file is then only known after another edit.
        """
        update = UpdateFileRequest(
            id=generation_id,
            file_size_bytes=edited.file_size_bytes,
            file_sha256=edited.file_sha256,
            previous_file_sha256=previous_sha256,
        )
        marks = (ProvenanceMark.Name(mark).removeprefix("PROVENANCE_MARK_") for mark in edited.marks)
        update.metadata.update({"provenance": ", ".join(marks), "manifest_path": edited.manifest_path or None})
        try:
            await self._storage.call_unary(self._storage.stub.UpdateFile, update)
        except grpc.aio.AioRpcError as error:
            if read_error_details(error).reason != "FILE_CHANGED":
                raise
            return False
        return True

    async def _read_completed(self, generation_id: str) -> str:
        """Returns the recorded SHA-256 of the file; empty if none. Raises FailedPrecondition unless COMPLETED."""
        found = await self._storage.call_unary(self._storage.stub.GetGeneration, GetGenerationRequest(id=generation_id))
        if found.generation.state != GENERATION_STATE_COMPLETED:
            state = GenerationState.Name(found.generation.state).removeprefix("GENERATION_STATE_")
            raise FailedPrecondition(
                f"generation {generation_id} is {state}; only a COMPLETED generation has tags that can be edited",
                reason="NOT_COMPLETED",
                metadata={"id": generation_id, "state": state},
            )
        return recorded_sha256(found.generation)
