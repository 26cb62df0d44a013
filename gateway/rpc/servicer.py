"""The public API: forwards calls to the services behind the gateway, and adds what takes more than one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
from structlog.contextvars import bind_contextvars

from dgx_music.access.v1 import access_pb2 as access
from dgx_music.errors import FailedPrecondition, InvalidArgument
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.gateway.v1.gateway_pb2_grpc import MusicServiceServicer
from dgx_music.generation.v1 import generation_pb2 as generation
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.limits import MAX_BATCH_SIZE
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1 import storage_pb2_grpc
from gateway.rpc.audio_proxy import stream_audio
from gateway.rpc.export_servers import ExportServers
from gateway.rpc.file_cleanup import FileCleanup
from gateway.rpc.file_deletion import FileDeletion
from gateway.rpc.file_verification import verify_files
from gateway.rpc.generation_watches import GenerationWatches
from gateway.rpc.known_tempo import find_tempo
from gateway.rpc.request_completion import RequestCompletion
from gateway.rpc.service_client import ServiceClient
from gateway.rpc.tag_editing import TagEditing
from gateway.timeouts import RENDER_TIMEOUT_SECONDS

Context = grpc.aio.ServicerContext[Any, Any]


class MusicServicer(MusicServiceServicer):
    """Implements MusicService. Errors of the services are passed on unchanged."""

    def __init__(
        self,
        storage_client: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub],
        export_client: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
        generation_client: ServiceClient[generation_pb2_grpc.GenerationServiceAsyncStub],
        export_servers: ExportServers,
    ) -> None:
        self._storage, self._export, self._generation = storage_client, export_client, generation_client
        self._export_servers = export_servers
        self._completion = RequestCompletion(storage_client, export_client, generation_client)
        self._watches = GenerationWatches(storage_client)
        self._tag_editing = TagEditing(storage_client, export_client)
        self._file_deletion = FileDeletion(export_servers)

    async def stop(self) -> None:
        """Ends what goes on besides the calls."""
        await self._file_deletion.stop()
        await self._export_servers.stop()

    async def CreateGeneration(
        self, request: storage.CreateGenerationRequest, context: Context
    ) -> storage.CreateGenerationResponse:
        await self._completion.complete(request)
        response = await self._storage.call_unary(self._storage.stub.CreateGeneration, request)
        bind_contextvars(generation_id=response.generation.id)
        return response

    async def BatchCreateGenerations(
        self, request: storage.BatchCreateGenerationsRequest, context: Context
    ) -> storage.BatchCreateGenerationsResponse:
        for index, one in enumerate(request.requests[:MAX_BATCH_SIZE]):  # Storage rejects a batch that is larger.
            try:
                await self._completion.complete(one)
            except InvalidArgument as error:
                raise InvalidArgument(f"requests[{index}].{error.field}", error.problem, reason=error.reason) from error
        return await self._storage.call_unary(self._storage.stub.BatchCreateGenerations, request)

    async def ImportClip(
        self, request_iterator: AsyncIterator[export.ImportClipRequest], context: Context
    ) -> export.ImportClipResponse:
        return await self._export.call_client_stream(self._export.stub.ImportClip, request_iterator)

    async def GetGeneration(
        self, request: storage.GetGenerationRequest, context: Context
    ) -> storage.GetGenerationResponse:
        return await self._storage.call_unary(self._storage.stub.GetGeneration, request)

    async def GetLineage(self, request: storage.GetLineageRequest, context: Context) -> storage.GetLineageResponse:
        return await self._storage.call_unary(self._storage.stub.GetLineage, request)

    async def ListGenerations(
        self, request: storage.ListGenerationsRequest, context: Context
    ) -> storage.ListGenerationsResponse:
        return await self._storage.call_unary(self._storage.stub.ListGenerations, request)

    async def WatchGeneration(
        self, request: storage.WatchGenerationRequest, context: Context
    ) -> AsyncIterator[storage.WatchGenerationResponse]:
        async with aclosing(self._storage.call_server_stream(self._storage.stub.WatchGeneration, request)) as responses:
            async for response in responses:
                yield response

    async def StreamAudio(
        self, request: export.StreamAudioRequest, context: Context
    ) -> AsyncIterator[export.StreamAudioResponse]:
        async with aclosing(stream_audio(self._watches, self._export_servers, request)) as responses:
            async for response in responses:
                yield response

    async def Download(
        self, request: export.DownloadRequest, context: Context
    ) -> AsyncIterator[export.DownloadResponse]:
        async with aclosing(self._export.call_server_stream(self._export.stub.Download, request)) as responses:
            async for response in responses:
                yield response

    async def GetDownloadUrl(
        self, request: export.GetDownloadUrlRequest, context: Context
    ) -> export.GetDownloadUrlResponse:
        return await self._export.call_unary(self._export.stub.GetDownloadUrl, request)

    async def GetWaveform(self, request: export.GetWaveformRequest, context: Context) -> export.GetWaveformResponse:
        return await self._export.call_unary(self._export.stub.GetWaveform, request)

    async def GetBeatGrid(self, request: export.GetBeatGridRequest, context: Context) -> export.GetBeatGridResponse:
        if not request.expected_bpm:
            request.expected_bpm = await find_tempo(self._storage, request.generation_id)
        return await self._export.call_unary(self._export.stub.GetBeatGrid, request, RENDER_TIMEOUT_SECONDS)

    async def GetLoudnessCurve(
        self, request: export.GetLoudnessCurveRequest, context: Context
    ) -> export.GetLoudnessCurveResponse:
        return await self._export.call_unary(self._export.stub.GetLoudnessCurve, request, RENDER_TIMEOUT_SECONDS)

    async def GetMidi(self, request: generation.GetMidiRequest, context: Context) -> generation.GetMidiResponse:
        return await self._generation.call_unary(self._generation.stub.GetMidi, request, RENDER_TIMEOUT_SECONDS)

    async def StreamStems(
        self, request: generation.StreamStemsRequest, context: Context
    ) -> AsyncIterator[generation.StreamStemsResponse]:
        stub = self._generation.stub.StreamStems
        async with aclosing(self._generation.call_server_stream(stub, request)) as responses:
            async for response in responses:
                yield response

    async def Render(self, request: export.RenderRequest, context: Context) -> export.RenderResponse:
        return await self._export.call_unary(self._export.stub.Render, request, RENDER_TIMEOUT_SECONDS)

    async def EditTags(self, request: export.EditTagsRequest, context: Context) -> export.EditTagsResponse:
        return await self._tag_editing.edit(request)

    async def DeleteFile(self, request: export.DeleteFileRequest, context: Context) -> export.DeleteFileResponse:
        if not request.render_id and await self._is_generation(request.generation_id):
            raise FailedPrecondition(
                f"{request.generation_id} is a generation, not a clip: delete the generation, and its file with it",
                reason="NOT_A_CLIP",
                metadata={"id": request.generation_id},
            )
        return await self._export.call_unary(self._export.stub.DeleteFile, request)

    async def _is_generation(self, generation_id: str) -> bool:
        try:
            await self._storage.call_unary(
                self._storage.stub.GetGeneration, storage.GetGenerationRequest(id=generation_id)
            )
        except grpc.aio.AioRpcError as error:
            # Export rejects a malformed id with the name that the field has in this request.
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise
            return False
        return True

    async def ListFiles(self, request: export.ListFilesRequest, context: Context) -> export.ListFilesResponse:
        return await self._export.call_unary(self._export.stub.ListFiles, request)

    async def GetLibraryStatistics(
        self, request: export.GetLibraryStatisticsRequest, context: Context
    ) -> export.GetLibraryStatisticsResponse:
        return await self._export.call_unary(self._export.stub.GetLibraryStatistics, request)

    async def VerifyFiles(
        self, request: export.VerifyFilesRequest, context: Context
    ) -> AsyncIterator[export.VerifyFilesResponse]:
        async with aclosing(verify_files(self._storage, self._export, request)) as responses:
            async for response in responses:
                yield response

    async def Cleanup(self, request: export.CleanupRequest, context: Context) -> AsyncIterator[export.CleanupResponse]:
        async with aclosing(FileCleanup(self._storage, self._export, request).run()) as responses:
            async for response in responses:
                yield response

    async def RateGeneration(
        self, request: storage.RateGenerationRequest, context: Context
    ) -> storage.RateGenerationResponse:
        return await self._storage.call_unary(self._storage.stub.RateGeneration, request)

    async def CreateComparison(
        self, request: storage.CreateComparisonRequest, context: Context
    ) -> storage.CreateComparisonResponse:
        return await self._storage.call_unary(self._storage.stub.CreateComparison, request)

    async def ListComparisons(
        self, request: storage.ListComparisonsRequest, context: Context
    ) -> storage.ListComparisonsResponse:
        return await self._storage.call_unary(self._storage.stub.ListComparisons, request)

    async def CancelGeneration(
        self, request: storage.CancelGenerationRequest, context: Context
    ) -> storage.CancelGenerationResponse:
        response = await self._storage.call_unary(self._storage.stub.CancelGeneration, request)
        if response.generation.attempt:
            # An earlier attempt may have left a file or samples. A worker that exports deletes them, unless it is lost.
            await self._file_deletion.delete_for_good(request.id, response.generation.export_address)
        return response

    async def RetryGeneration(
        self, request: storage.RetryGenerationRequest, context: Context
    ) -> storage.RetryGenerationResponse:
        return await self._storage.call_unary(self._storage.stub.RetryGeneration, request)

    async def DeleteGeneration(
        self, request: storage.DeleteGenerationRequest, context: Context
    ) -> storage.DeleteGenerationResponse:
        current = await self._storage.call_unary(
            self._storage.stub.GetGeneration, storage.GetGenerationRequest(id=request.id)
        )
        state, export_address = current.generation.state, current.generation.export_address
        match state:
            case _ if request.state not in (storage.GENERATION_STATE_UNSPECIFIED, state):
                # Storage rejects this before any file is deleted.
                response = await self._storage.call_unary(self._storage.stub.DeleteGeneration, request)
            case storage.GENERATION_STATE_PROCESSING:
                raise FailedPrecondition(
                    f"generation {request.id} is being processed: cancel it first, then delete it",
                    reason="GENERATION_PROCESSING",
                    metadata={"id": request.id, "state": "PROCESSING"},
                )
            case storage.GENERATION_STATE_PENDING:
                # A worker may claim it at any moment. The row is deleted first, by one statement that fails if it was
                # claimed meanwhile, so that the files of a running attempt are left alone.
                response = await self._storage.call_unary(self._storage.stub.DeleteGeneration, request)
                await self._file_deletion.delete_for_good(request.id, export_address)
            case _:
                # The file is deleted first: if this fails halfway, the row is still there and the call can be repeated.
                await self._file_deletion.delete(request.id, export_address)
                response = await self._storage.call_unary(self._storage.stub.DeleteGeneration, request)
        return response

    async def ListModels(
        self, request: generation.ListModelsRequest, context: Context
    ) -> generation.ListModelsResponse:
        return await self._generation.call_unary(self._generation.stub.ListModels, request)

    async def GetEngineStatus(
        self, request: generation.GetEngineStatusRequest, context: Context
    ) -> generation.GetEngineStatusResponse:
        return await self._generation.call_unary(self._generation.stub.GetEngineStatus, request)

    async def ListPrompts(self, request: storage.ListPromptsRequest, context: Context) -> storage.ListPromptsResponse:
        return await self._storage.call_unary(self._storage.stub.ListPrompts, request)

    async def GetStatistics(
        self, request: storage.GetStatisticsRequest, context: Context
    ) -> storage.GetStatisticsResponse:
        return await self._storage.call_unary(self._storage.stub.GetStatistics, request)

    async def CreateToken(self, request: access.CreateTokenRequest, context: Context) -> access.CreateTokenResponse:
        return await self._storage.call_unary(self._storage.stub.CreateToken, request)

    async def ListTokens(self, request: access.ListTokensRequest, context: Context) -> access.ListTokensResponse:
        return await self._storage.call_unary(self._storage.stub.ListTokens, request)

    async def RevokeToken(self, request: access.RevokeTokenRequest, context: Context) -> access.RevokeTokenResponse:
        return await self._storage.call_unary(self._storage.stub.RevokeToken, request)
