"""Verifies the library's files against what storage recorded. Storage lists the generations, export reads the files."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import grpc.aio

from dgx_music.error_status import read_error_details
from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.export.v1.export_pb2 import (
    FILE_CONDITION_CHANGED,
    FILE_CONDITION_INTACT,
    FILE_CONDITION_PRESENT,
    ExpectedFile,
    VerifyFilesRequest,
    VerifyFilesResponse,
)
from dgx_music.storage.v1 import storage_pb2_grpc
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_COMPLETED,
    Generation,
    GetGenerationRequest,
    ListGenerationsRequest,
)
from gateway.rpc.service_client import ServiceClient

PAGE_SIZE = 200
"""Generations that are listed and verified at a time."""


async def verify_files(
    storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub],
    export: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
    request: VerifyFilesRequest,
) -> AsyncGenerator[VerifyFilesResponse, None]:
    """Yields one response per file. A file whose generation is deleted meanwhile is not reported as missing, and one
    whose tags are edited meanwhile not as changed.
    """
    given = {file.generation_id for file in request.files if file.file_sha256}
    async with aclosing(_expected_files(storage, request)) as batches:
        async for files in batches:
            batch_request = VerifyFilesRequest(files=files, presence_only=request.presence_only)
            async with aclosing(export.call_server_stream(export.stub.VerifyFiles, batch_request)) as responses:
                async for response in responses:
                    is_own_hash = bool(response.render_id) or response.generation_id in given
                    if response.condition == FILE_CONDITION_CHANGED and not is_own_hash:
                        await _recheck(storage, response)
                    is_valid = response.condition in (FILE_CONDITION_INTACT, FILE_CONDITION_PRESENT)
                    if is_valid or request.files or await _is_completed(storage, response.generation_id):
                        yield response


async def _expected_files(
    storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub], request: VerifyFilesRequest
) -> AsyncGenerator[list[ExpectedFile], None]:
    """Yields the requested files, or else those of all COMPLETED generations page by page, with their SHA-256."""
    if request.files:
        for index, file in enumerate(request.files):
            if not file.file_sha256:
                file.file_sha256 = recorded_sha256(await _get_generation(storage, file.generation_id, index))
        yield list(request.files)
        return
    page_request = ListGenerationsRequest(states=[GENERATION_STATE_COMPLETED], page_size=PAGE_SIZE)
    while True:
        page = await storage.call_unary(storage.stub.ListGenerations, page_request)
        if page.generations:
            yield [
                ExpectedFile(generation_id=generation.id, file_sha256=recorded_sha256(generation))
                for generation in page.generations
            ]
        page_request.page_token = page.next_page_token
        if not page_request.page_token:
            return


async def _get_generation(
    storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub], generation_id: str, index: int
) -> Generation:
    try:
        response = await storage.call_unary(storage.stub.GetGeneration, GetGenerationRequest(id=generation_id))
    except grpc.aio.AioRpcError as error:
        if problem := read_error_details(error).violations.get("id"):
            raise InvalidArgument(f"files[{index}].generation_id", problem) from error
        raise
    return response.generation


def recorded_sha256(generation: Generation) -> str:
    """Returns the SHA-256 that the worker recorded at completion, or an empty string if it recorded none."""
    fields = generation.metadata.fields
    return fields["file_sha256"].string_value if "file_sha256" in fields else ""


async def _recheck(
    storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub], response: VerifyFilesResponse
) -> None:
    """Reports a changed file as intact if its new hash has been recorded since it was listed."""
    found = await _find_generation(storage, response.generation_id)
    if found is not None and recorded_sha256(found) == response.file_sha256:
        response.condition = FILE_CONDITION_INTACT


async def _is_completed(storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub], generation_id: str) -> bool:
    found = await _find_generation(storage, generation_id)
    return found is not None and found.state == GENERATION_STATE_COMPLETED


async def _find_generation(
    storage: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub], generation_id: str
) -> Generation | None:
    try:
        response = await storage.call_unary(storage.stub.GetGeneration, GetGenerationRequest(id=generation_id))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return None
    return response.generation
