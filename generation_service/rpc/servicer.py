"""The servicer of GenerationService: translates each call into calls of the engine."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import grpc.aio
from structlog.contextvars import bind_contextvars

from dgx_music.errors import ServiceError
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from dgx_music.pcm import PcmWriter, live_header
from generation_service.models.base import ModelInfo
from generation_service.models.params import build_parameters
from generation_service.processes.engine_client import RequestOrigin
from generation_service.processes.engine_pool import EnginePool
from generation_service.rpc import converters
from generation_service.rpc.part_requests import PartRequests
from generation_service.worker import converters as worker_converters
from generation_service.worker.conditioning import build_conditions, require_capabilities
from generation_service.worker.continuation_audio import fetch_prompt_audio
from service_runtime.access.caller import current_caller

Context = grpc.aio.ServicerContext[Any, Any]


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Implements the RPCs. Errors are raised as ServiceError, which the server's interceptor maps to a gRPC status."""

    export: export_pb2_grpc.ExportServiceAsyncStub
    parts: PartRequests
    """Both are set before the server accepts calls."""

    def __init__(self, engine: EnginePool) -> None:
        self._engine = engine

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        info = await self._engine.catalog.describe(request.model_name, field="model_name")
        seed = request.seed if request.HasField("seed") else None
        sampling = worker_converters.sampling_from_proto(request.sampling)
        parameters = build_parameters(info, request.prompt, request.duration_seconds, seed, sampling)
        await require_capabilities(request, info, self._engine.catalog)
        conditions = await build_conditions(request.conditioning, info, self.export, request.duration_seconds)
        if request.HasField("continuation"):
            conditions["prompt_audio"] = await fetch_prompt_audio(request.continuation, info, self.export)
        parameters = replace(parameters, **conditions)
        generation_id = str(uuid.uuid4())
        bind_contextvars(generation_id=generation_id)
        handle = await self._engine.submit(info, parameters, _origin_of(context))
        writer = PcmWriter(info.channels)
        try:
            header = live_header(generation_id, 1, info.sample_rate_hz, info.channels, parameters.frames)
            yield generation_pb2.GenerateResponse(header=header)
            yield generation_pb2.GenerateResponse(progress=converters.progress_to_proto(handle, writer.frames))
            async for block in handle:
                for chunk in writer.chunks(worker_converters.encode_pcm(block)):
                    yield generation_pb2.GenerateResponse(chunk=chunk)
                yield generation_pb2.GenerateResponse(progress=converters.progress_to_proto(handle, writer.frames))
            yield generation_pb2.GenerateResponse(end=writer.end())
        finally:
            # If the caller cancels, disconnects or exceeds its deadline, its place is freed at the next step.
            handle.cancel()

    async def ListModels(
        self, request: generation_pb2.ListModelsRequest, context: Context
    ) -> generation_pb2.ListModelsResponse:
        models = [await self._describe(name) for name in await self._engine.catalog.refresh_names()]
        return generation_pb2.ListModelsResponse(models=models)

    async def GetModel(
        self, request: generation_pb2.GetModelRequest, context: Context
    ) -> generation_pb2.GetModelResponse:
        info = await self._engine.catalog.describe(request.name)
        return generation_pb2.GetModelResponse(model=await self._to_proto(info))

    async def LoadModel(
        self, request: generation_pb2.LoadModelRequest, context: Context
    ) -> generation_pb2.LoadModelResponse:
        info = await self._engine.catalog.describe(request.name)
        await self._engine.load(info)
        return generation_pb2.LoadModelResponse(model=await self._to_proto(info))

    async def UnloadModel(
        self, request: generation_pb2.UnloadModelRequest, context: Context
    ) -> generation_pb2.UnloadModelResponse:
        name = request.name or self._engine.catalog.default_name
        if self._engine.has_loaded(name):
            await self._engine.unload(name)
        else:
            await self._engine.catalog.refresh_names()
            self._engine.catalog.get(name)  # Raises if there is no such model.
        return generation_pb2.UnloadModelResponse(model=await self._describe(name))

    async def GetMidi(self, request: generation_pb2.GetMidiRequest, context: Context) -> generation_pb2.GetMidiResponse:
        bind_contextvars(generation_id=request.generation_id)
        return await self.parts.get_midi(request.generation_id)

    async def StreamStems(
        self, request: generation_pb2.StreamStemsRequest, context: Context
    ) -> AsyncIterator[generation_pb2.StreamStemsResponse]:
        bind_contextvars(generation_id=request.generation_id)
        async with aclosing(self.parts.stream_stems(request.generation_id)) as responses:
            async for response in responses:
                yield response

    async def GetEngineStatus(
        self, request: generation_pb2.GetEngineStatusRequest, context: Context
    ) -> generation_pb2.GetEngineStatusResponse:
        await self._engine.refresh()
        readings = await asyncio.to_thread(self._engine.readings)
        return converters.engine_status_to_proto(self._engine.reports(), readings, self._engine.requests())

    async def _describe(self, name: str) -> generation_pb2.Model:
        try:
            return await self._to_proto(await self._engine.catalog.describe(name))
        except ServiceError as error:
            is_default = name == self._engine.catalog.default_name
            return converters.unusable_model_to_proto(name, error.message, is_default=is_default)

    async def _to_proto(self, info: ModelInfo) -> generation_pb2.Model:
        return converters.model_to_proto(
            info,
            is_default=info.name == self._engine.catalog.default_name,
            is_loaded=self._engine.is_loaded(info),
            execution=self._engine.execution(info),
            adapters=await self._engine.catalog.adapter_problems(info.name),
        )


def _origin_of(context: Context) -> RequestOrigin:
    """Returns for whom a call is made, and until when it waits."""
    remaining_seconds = context.time_remaining()
    deadline = None if remaining_seconds is None else time.monotonic() + remaining_seconds
    caller = current_caller()
    return RequestOrigin(client=caller.client, weight=caller.weight, deadline=deadline)
