"""The public face: passes calls on to the services behind it, and adds what takes more than one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from dgx_music.errors import FailedPrecondition, InvalidArgument
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceServicer
from dgx_music.generation.v1 import generation_pb2 as generation
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.status import read_error_details
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1 import storage_pb2_grpc
from gateway.rpc.audio_proxy import listen
from gateway.rpc.continuation_support import require_able
from gateway.rpc.file_cleanup import Cleaner
from gateway.rpc.file_verification import verify
from gateway.rpc.service_client import RENDER_SECONDS, Upstream

MAX_BATCH = 100
"""Most generations in one call, as the contract says."""

Context = grpc.aio.ServicerContext[Any, Any]


class MusicServicer(MusicServiceServicer):
    """One method a call. What a service refuses is refused in its own words."""

    def __init__(
        self,
        storage_upstream: Upstream[storage_pb2_grpc.StorageServiceAsyncStub],
        export_upstream: Upstream[export_pb2_grpc.ExportServiceAsyncStub],
        generation_upstream: Upstream[generation_pb2_grpc.GenerationServiceAsyncStub],
    ) -> None:
        self._storage, self._export, self._generation = storage_upstream, export_upstream, generation_upstream

    async def CreateGeneration(
        self, request: storage.CreateGenerationRequest, context: Context
    ) -> storage.CreateGenerationResponse:
        await self._complete_request(request)
        return await self._storage.ask(self._storage.stub.CreateGeneration, request)

    async def BatchCreateGenerations(
        self, request: storage.BatchCreateGenerationsRequest, context: Context
    ) -> storage.BatchCreateGenerationsResponse:
        for index, one in enumerate(request.requests[:MAX_BATCH]):  # Of more, storage says that they are too many.
            try:
                await self._complete_request(one)
            except InvalidArgument as error:
                raise InvalidArgument(f"requests[{index}].{error.field}", error.problem, reason=error.reason) from error
        return await self._storage.ask(self._storage.stub.BatchCreateGenerations, request)

    async def _complete_request(self, request: storage.CreateGenerationRequest) -> None:
        """Fills in what the model decides. InvalidArgument where it can't do what is asked for."""
        model = await self._model(request.model_name)
        for field, own in (("sample_rate_hz", model.sample_rate_hz), ("channels", model.channels)):
            asked = getattr(request, field)
            if asked not in (0, own):
                raise InvalidArgument(field, f"model {model.name} makes {own}, not {asked}; leave it out to get that")
        if request.duration_seconds > model.max_duration_seconds:
            raise InvalidArgument(
                "duration_seconds",
                f"model {model.name} makes at most {model.max_duration_seconds:g} s, not {request.duration_seconds:g}",
            )
        if request.HasField("continuation"):
            await self._check_continuation(model, request.continuation.source_id)
        request.model_name, request.sample_rate_hz, request.channels = model.name, model.sample_rate_hz, model.channels

    async def _model(self, name: str) -> generation.Model:
        try:
            found = await self._generation.ask(self._generation.stub.GetModel, generation.GetModelRequest(name=name))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            raise InvalidArgument("model_name", read_error_details(error).message, reason="UNKNOWN_MODEL") from error
        return found.model

    async def _check_continuation(self, model: generation.Model, source_id: str) -> None:
        if not model.can_continue:
            listed = await self._generation.ask(self._generation.stub.ListModels, generation.ListModelsRequest())
            require_able(model.name, listed.models)
        try:
            found = await self._storage.ask(
                self._storage.stub.GetGeneration, storage.GetGenerationRequest(id=source_id)
            )
        except grpc.aio.AioRpcError as error:
            # A clip's id: storage does not know it, export will. For what is no id, storage names the field.
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise
            return
        if found.generation.state != storage.GENERATION_STATE_COMPLETED:
            state = storage.GenerationState.Name(found.generation.state).removeprefix("GENERATION_STATE_")
            raise FailedPrecondition(
                f"generation {source_id} is {state}: one that is to be continued must be COMPLETED",
                reason="SOURCE_NOT_COMPLETED",
                metadata={"id": source_id, "state": state},
            )

    async def ImportClip(
        self, request_iterator: AsyncIterator[export.ImportClipRequest], context: Context
    ) -> export.ImportClipResponse:
        return await self._export.send(self._export.stub.ImportClip, request_iterator)

    async def GetGeneration(
        self, request: storage.GetGenerationRequest, context: Context
    ) -> storage.GetGenerationResponse:
        return await self._storage.ask(self._storage.stub.GetGeneration, request)

    async def ListGenerations(
        self, request: storage.ListGenerationsRequest, context: Context
    ) -> storage.ListGenerationsResponse:
        return await self._storage.ask(self._storage.stub.ListGenerations, request)

    async def WatchGeneration(
        self, request: storage.WatchGenerationRequest, context: Context
    ) -> AsyncIterator[storage.WatchGenerationResponse]:
        async with aclosing(self._storage.stream(self._storage.stub.WatchGeneration, request)) as responses:
            async for response in responses:
                yield response

    async def StreamAudio(
        self, request: export.StreamAudioRequest, context: Context
    ) -> AsyncIterator[export.StreamAudioResponse]:
        async with aclosing(listen(self._storage, self._export, request)) as responses:
            async for response in responses:
                yield response

    async def Download(
        self, request: export.DownloadRequest, context: Context
    ) -> AsyncIterator[export.DownloadResponse]:
        async with aclosing(self._export.stream(self._export.stub.Download, request)) as responses:
            async for response in responses:
                yield response

    async def GetWaveform(self, request: export.GetWaveformRequest, context: Context) -> export.GetWaveformResponse:
        return await self._export.ask(self._export.stub.GetWaveform, request)

    async def Render(self, request: export.RenderRequest, context: Context) -> export.RenderResponse:
        return await self._export.ask(self._export.stub.Render, request, RENDER_SECONDS)

    async def DeleteFile(self, request: export.DeleteFileRequest, context: Context) -> export.DeleteFileResponse:
        if not request.render_id and await self._is_generation(request.generation_id):
            raise FailedPrecondition(
                f"{request.generation_id} is a generation, whose file goes with it: delete the generation",
                reason="NOT_A_CLIP",
                metadata={"id": request.generation_id},
            )
        return await self._export.ask(self._export.stub.DeleteFile, request)

    async def _is_generation(self, generation_id: str) -> bool:
        try:
            await self._storage.ask(self._storage.stub.GetGeneration, storage.GetGenerationRequest(id=generation_id))
        except grpc.aio.AioRpcError as error:
            # What is no id, export refuses by the name that its field has here.
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise
            return False
        return True

    async def ListFiles(self, request: export.ListFilesRequest, context: Context) -> export.ListFilesResponse:
        return await self._export.ask(self._export.stub.ListFiles, request)

    async def GetLibraryStatistics(
        self, request: export.GetLibraryStatisticsRequest, context: Context
    ) -> export.GetLibraryStatisticsResponse:
        return await self._export.ask(self._export.stub.GetLibraryStatistics, request)

    async def VerifyFiles(
        self, request: export.VerifyFilesRequest, context: Context
    ) -> AsyncIterator[export.VerifyFilesResponse]:
        async with aclosing(verify(self._storage, self._export, request)) as responses:
            async for response in responses:
                yield response

    async def Cleanup(self, request: export.CleanupRequest, context: Context) -> AsyncIterator[export.CleanupResponse]:
        async with aclosing(Cleaner(self._storage, self._export, request).run()) as responses:
            async for response in responses:
                yield response

    async def CancelGeneration(
        self, request: storage.CancelGenerationRequest, context: Context
    ) -> storage.CancelGenerationResponse:
        return await self._storage.ask(self._storage.stub.CancelGeneration, request)

    async def RetryGeneration(
        self, request: storage.RetryGenerationRequest, context: Context
    ) -> storage.RetryGenerationResponse:
        return await self._storage.ask(self._storage.stub.RetryGeneration, request)

    async def DeleteGeneration(
        self, request: storage.DeleteGenerationRequest, context: Context
    ) -> storage.DeleteGenerationResponse:
        got = await self._storage.ask(self._storage.stub.GetGeneration, storage.GetGenerationRequest(id=request.id))
        state = got.generation.state
        match state:
            # Storage says so, before a file is touched.
            case _ if request.state not in (storage.GENERATION_STATE_UNSPECIFIED, state):
                response = await self._storage.ask(self._storage.stub.DeleteGeneration, request)
            case storage.GENERATION_STATE_PROCESSING:
                raise FailedPrecondition(
                    f"generation {request.id} is being made: cancel it first, then delete it",
                    reason="GENERATION_PROCESSING",
                    metadata={"id": request.id, "state": "PROCESSING"},
                )
            case storage.GENERATION_STATE_PENDING:
                # A worker may claim it at any moment. The row goes first, in one statement that refuses a claimed one:
                # the files of an attempt that runs are left alone.
                response = await self._storage.ask(self._storage.stub.DeleteGeneration, request)
                await self._delete_file(request.id)
            case _:
                # The file goes first: if this breaks off in between, the row is there to repeat it by.
                await self._delete_file(request.id)
                response = await self._storage.ask(self._storage.stub.DeleteGeneration, request)
        return response

    async def _delete_file(self, generation_id: str) -> None:
        try:
            await self._export.ask(self._export.stub.DeleteFile, export.DeleteFileRequest(generation_id=generation_id))
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    async def ListModels(
        self, request: generation.ListModelsRequest, context: Context
    ) -> generation.ListModelsResponse:
        return await self._generation.ask(self._generation.stub.ListModels, request)

    async def ListPrompts(self, request: storage.ListPromptsRequest, context: Context) -> storage.ListPromptsResponse:
        return await self._storage.ask(self._storage.stub.ListPrompts, request)

    async def GetStatistics(
        self, request: storage.GetStatisticsRequest, context: Context
    ) -> storage.GetStatisticsResponse:
        return await self._storage.ask(self._storage.stub.GetStatistics, request)
