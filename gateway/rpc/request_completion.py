"""Checks a request for a generation against its model and its sources, and fills in what these determine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing

import grpc
import grpc.aio

from dgx_music.audio.v1.audio_pb2 import AUDIO_LEVEL_FINAL, FILE_FORMAT_M4A_AAC
from dgx_music.error_status import read_error_details
from dgx_music.errors import FailedPrecondition, InvalidArgument
from dgx_music.export.v1 import export_pb2 as export
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2 as generation
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.limits import LOOP_BPM_RANGE
from dgx_music.storage.v1 import conditioning_pb2 as conditioning
from dgx_music.storage.v1 import storage_pb2 as storage
from dgx_music.storage.v1 import storage_pb2_grpc
from gateway.rpc.capability_support import has_capability, require_capability
from gateway.rpc.service_client import ServiceClient
from service_runtime.capabilities import check_adapter, needed_capabilities
from service_runtime.message_fields import read_fields
from service_runtime.prompt_tempo import parse_tempo
from service_runtime.shaping import check_edit, check_length, check_loop, edited_seconds, loop_seconds

OPTIONAL_FORMATS = (FILE_FORMAT_M4A_AAC,)
"""Formats that not every export service can write. The others need no check, and can be requested while it is down."""
EDIT_OVERLAP_SECONDS = 2.5
"""How much more than the new part of an edit is generated at most, to be joined."""


class RequestCompletion:
    """The checks of MusicService that need several services."""

    def __init__(
        self,
        storage_client: ServiceClient[storage_pb2_grpc.StorageServiceAsyncStub],
        export_client: ServiceClient[export_pb2_grpc.ExportServiceAsyncStub],
        generation_client: ServiceClient[generation_pb2_grpc.GenerationServiceAsyncStub],
    ) -> None:
        self._storage, self._export, self._generation = storage_client, export_client, generation_client

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
        self._check_adapters(model, request)
        for source_id in _source_ids(request):
            await self._require_completed(source_id)
        if request.variation_of:
            await self._require_existing(request.variation_of)
        if request.HasField("edit"):
            await self._complete_edit(request)
        elif request.HasField("loop"):
            complete_loop(request)
        check_generated_length(request, model)
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

    async def _require_completed(self, source_id: str) -> None:
        try:
            source = await self._get_generation(source_id)
        except grpc.aio.AioRpcError as error:
            # Storage does not know a clip's id, but export does. A malformed id is rejected when storage creates the
            # generation, with the right field name.
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise
            return
        if source.state != storage.GENERATION_STATE_COMPLETED:
            state = storage.GenerationState.Name(source.state).removeprefix("GENERATION_STATE_")
            raise FailedPrecondition(
                f"generation {source_id} is {state}; only a COMPLETED generation can be used for another",
                reason="SOURCE_NOT_COMPLETED",
                metadata={"id": source_id, "state": state},
            )

    async def _require_existing(self, generation_id: str) -> None:
        try:
            await self._get_generation(generation_id)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise
            raise InvalidArgument("variation_of", read_error_details(error).message) from error

    async def _get_generation(self, generation_id: str) -> storage.Generation:
        request = storage.GetGenerationRequest(id=generation_id)
        return (await self._storage.call_unary(self._storage.stub.GetGeneration, request)).generation

    async def _complete_edit(self, request: storage.CreateGenerationRequest) -> None:
        """Sets the duration to the length of the result, which follows from that of the source."""
        edit = read_fields(request.edit)
        check_edit("edit", edit)
        _set_duration(request, edited_seconds("edit", edit, await self._measure_source(request.edit.source_id)))

    async def _measure_source(self, source_id: str) -> float:
        """Returns the length of the source's file in seconds."""
        request = export.StreamAudioRequest(generation_id=source_id, level=AUDIO_LEVEL_FINAL)
        try:
            async with aclosing(self._export.call_server_stream(self._export.stub.StreamAudio, request)) as responses:
                async for response in responses:
                    return response.header.expected_frames / response.header.sample_rate_hz
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
        raise InvalidArgument("edit.source_id", f"there is no finished generation or clip {source_id}")


def _source_ids(request: storage.CreateGenerationRequest) -> Iterator[str]:
    """Yields the ids of the sources, each once."""
    conditions = request.conditioning
    sources = (request.continuation, conditions.melody, conditions.style, request.edit)
    yield from dict.fromkeys(source.source_id for source in sources if source.source_id)


def check_generated_length(request: storage.CreateGenerationRequest, model: generation.Model) -> None:
    """Raises InvalidArgument if the model would have to generate more than it can. Of an edit, it generates a part."""
    field, seconds, limit = "duration_seconds", request.duration_seconds, model.max_duration_seconds
    if request.HasField("edit"):
        edit, limit = request.edit, limit - EDIT_OVERLAP_SECONDS
        field, seconds = "edit.added_seconds", edit.added_seconds
        if edit.kind == conditioning.EDIT_KIND_REPAINT:
            field, seconds = "edit.end_seconds", edit.end_seconds - edit.start_seconds
    if seconds > limit:
        raise InvalidArgument(
            field, f"must be at most {limit:g} s of new music for model {model.name}, not {seconds:g}"
        )


def complete_loop(request: storage.CreateGenerationRequest) -> None:
    """Sets the tempo, if the prompt names it, and the duration."""
    loop = request.loop
    if not loop.bpm:
        tempo = parse_tempo(request.prompt)
        if tempo is None:
            low, high = LOOP_BPM_RANGE
            raise InvalidArgument(
                "loop.bpm", f'must be {low} to {high}, or the prompt must name the tempo, for example "at 84 BPM"'
            )
        loop.bpm = tempo
    fields = read_fields(loop)
    check_loop("loop", fields)
    _set_duration(request, loop_seconds(fields))


def _set_duration(request: storage.CreateGenerationRequest, seconds: float) -> None:
    if request.duration_seconds:
        check_length("duration_seconds", request.duration_seconds, seconds)
    request.duration_seconds = seconds
