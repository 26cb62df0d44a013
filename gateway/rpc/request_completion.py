"""Checks a request for a generation against its model and its sources, and fills in what these determine."""

from __future__ import annotations

import math

import grpc
import grpc.aio

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_M4A_AAC
from dgx_music.error_status import read_error_details
from dgx_music.errors import InvalidArgument
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2 as generation
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1 import storage_pb2_grpc
from gateway.rpc.capability_support import has_capability, require_capability
from gateway.rpc.length_completion import complete_length, edit_fields
from gateway.rpc.service_client import ServiceClient
from gateway.rpc.source_lengths import SourceLengths
from service_runtime.capabilities import check_adapter, needed_capabilities
from service_runtime.message_fields import read_fields
from service_runtime.shaping import check_conditioning
from service_runtime.validation import check_uuid

OPTIONAL_FORMATS = (FILE_FORMAT_M4A_AAC,)
"""Formats that not every export service can write. The others need no check, and can be requested while it is down."""


class RequestCompletion:
    """The checks of MusicService that need several services."""

    def __init__(
        self,
        storage_client: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub],
        export_client: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
        generation_client: ServiceClient[generation_pb2_grpc.GenerationServiceAsyncStub],
    ) -> None:
        self._storage, self._export, self._generation = storage_client, export_client, generation_client
        self._sources = SourceLengths(storage_client, export_client)

    async def complete(self, request: storage.CreateGenerationRequest) -> None:
        """Fills in what the model and the sources determine. Raises InvalidArgument if the model can't do what is
        requested, and FailedPrecondition if a source is not finished."""
        model = await self._get_model(request.model_name)
        for field, native in (("sample_rate_hz", model.sample_rate_hz), ("channels", model.channels)):
            requested = getattr(request, field)
            if requested not in (0, native):
                raise InvalidArgument(
                    field, f"must be {native} for model {model.name}, not {requested}; leave it out to use {native}"
                )
        await self._check_capabilities(model, request)
        if request.HasField("conditioning"):  # Whether the sections end within the music is checked by storage.
            check_conditioning("conditioning", read_fields(request.conditioning), math.inf)
        self._check_adapters(model, request)
        if request.variation_of:
            await self._require_existing(check_uuid("variation_of", request.variation_of))
        if request.HasField("edit"):
            edit_fields(request.edit)  # It is checked before its source.
        lengths = await self._sources.measure(request)
        complete_length(request, model, lengths.get(request.edit.source_id, 0.0))
        if request.output.format in OPTIONAL_FORMATS:
            await self._export.call_unary(
                self._export.stub.CheckOutput, export.CheckOutputRequest(output=request.output)
            )
        request.model_name, request.sample_rate_hz, request.channels = model.name, model.sample_rate_hz, model.channels

    async def _get_model(self, name: str) -> generation.Model:
        try:
            response = await self._generation.call_unary(
                self._generation.stub.GetModel, generation.GetModelRequest(name=name)
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            raise InvalidArgument("model_name", read_error_details(error).message, reason="UNKNOWN_MODEL") from error
        return response.model

    async def _check_capabilities(self, model: generation.Model, request: storage.CreateGenerationRequest) -> None:
        needed = needed_capabilities(
            read_fields(request.conditioning),
            continuation=request.HasField("continuation"),
            edit=request.HasField("edit"),
        )
        for field, capability in needed:
            if not has_capability(model, capability):
                listed = await self._generation.call_unary(
                    self._generation.stub.ListModels, generation.ListModelsRequest()
                )
                require_capability(model.name, capability, field, listed.models)

    @staticmethod
    def _check_adapters(model: generation.Model, request: storage.CreateGenerationRequest) -> None:
        problems = {adapter.name: adapter.problem for adapter in model.adapters}
        for index, adapter in enumerate(request.conditioning.adapters):
            check_adapter(index, adapter.name, model.name, problems)

    async def _require_existing(self, generation_id: str) -> None:
        try:
            await self._storage.call_unary(
                self._storage.stub.GetGeneration, storage.GetGenerationRequest(id=generation_id)
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            raise InvalidArgument("variation_of", read_error_details(error).message) from error
