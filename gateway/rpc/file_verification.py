"""Files held against what storage keeps of them: the generations come from storage, the reading is export's."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import grpc.aio

from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.export.v1.export_pb2 import (
    FILE_CONDITION_INTACT,
    FILE_CONDITION_PRESENT,
    ExpectedFile,
    VerifyFilesRequest,
    VerifyFilesResponse,
)
from dgx_music.status import read_error_details
from dgx_music.storage.v1 import storage_pb2_grpc
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_COMPLETED,
    Generation,
    GetGenerationRequest,
    ListGenerationsRequest,
)
from gateway.rpc.service_client import Upstream

PAGE = 200
"""Generations that are asked for at a time."""


async def verify(
    storage: Upstream[storage_pb2_grpc.StorageServiceAsyncStub],
    export: Upstream[export_pb2_grpc.ExportServiceAsyncStub],
    request: VerifyFilesRequest,
) -> AsyncGenerator[VerifyFilesResponse, None]:
    """An answer for each file. What somebody deleted meanwhile is not told as missing."""
    async with aclosing(_expected(storage, request)) as batches:
        async for files in batches:
            asked = VerifyFilesRequest(files=files, presence_only=request.presence_only)
            async with aclosing(export.stream(export.stub.VerifyFiles, asked)) as responses:
                async for response in responses:
                    is_well = response.condition in (FILE_CONDITION_INTACT, FILE_CONDITION_PRESENT)
                    if is_well or request.files or await _is_completed(storage, response.generation_id):
                        yield response


async def _expected(
    storage: Upstream[storage_pb2_grpc.StorageServiceAsyncStub], request: VerifyFilesRequest
) -> AsyncGenerator[list[ExpectedFile], None]:
    if request.files:
        for index, file in enumerate(request.files):
            if not file.file_sha256:
                file.file_sha256 = _sha256(await _generation(storage, file.generation_id, index))
        yield list(request.files)
        return
    pages = ListGenerationsRequest(states=[GENERATION_STATE_COMPLETED], page_size=PAGE)
    while True:
        page = await storage.ask(storage.stub.ListGenerations, pages)
        if page.generations:
            yield [ExpectedFile(generation_id=one.id, file_sha256=_sha256(one)) for one in page.generations]
        pages.page_token = page.next_page_token
        if not pages.page_token:
            return


async def _generation(
    storage: Upstream[storage_pb2_grpc.StorageServiceAsyncStub], generation_id: str, index: int
) -> Generation:
    try:
        found = await storage.ask(storage.stub.GetGeneration, GetGenerationRequest(id=generation_id))
    except grpc.aio.AioRpcError as error:
        if problem := read_error_details(error).violations.get("id"):
            raise InvalidArgument(f"files[{index}].generation_id", problem) from error
        raise
    return found.generation


def _sha256(generation: Generation) -> str:
    """As the worker noted it at completion."""
    fields = generation.metadata.fields
    return fields["file_sha256"].string_value if "file_sha256" in fields else ""


async def _is_completed(storage: Upstream[storage_pb2_grpc.StorageServiceAsyncStub], generation_id: str) -> bool:
    try:
        found = await storage.ask(storage.stub.GetGeneration, GetGenerationRequest(id=generation_id))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        return False
    return found.generation.state == GENERATION_STATE_COMPLETED
