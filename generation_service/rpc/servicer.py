"""The servicer of GenerationService: proto in, engine call, proto out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc.aio

from dgx_music.errors import ServiceError
from dgx_music.export.v1 import export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from dgx_music.pcm import PcmWriter
from generation_service.engine.engine import Engine
from generation_service.models.base import ModelInfo
from generation_service.models.params import parameters
from generation_service.rpc import converters
from generation_service.worker import converters as worker_converters
from generation_service.worker.continuation_audio import prompt_audio

Context = grpc.aio.ServicerContext[Any, Any]


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Answers from the engine. Errors are raised as ServiceError; the server maps them."""

    export: export_pb2_grpc.ExportServiceAsyncStub
    """Set before the first call comes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        info = await self._engine.catalog.describe(request.model_name, field="model_name")
        seed = request.seed if request.HasField("seed") else None
        asked = parameters(
            info, request.prompt, request.duration_seconds, seed, worker_converters.sampling(request.sampling)
        )
        if request.HasField("continuation"):
            heard = await prompt_audio(request.continuation, info, self._engine.catalog, self.export)
            asked = replace(asked, prompt_audio=heard)
        handle = self._engine.submit(info, asked)
        writer = PcmWriter(info.channels)
        try:
            header = worker_converters.audio_header(str(uuid.uuid4()), 1, handle)
            yield generation_pb2.GenerateResponse(header=header)
            yield generation_pb2.GenerateResponse(progress=converters.progress(handle, writer.frames))
            async for block in handle:
                for chunk in writer.chunks(worker_converters.pcm(block)):
                    yield generation_pb2.GenerateResponse(chunk=chunk)
                yield generation_pb2.GenerateResponse(progress=converters.progress(handle, writer.frames))
            yield generation_pb2.GenerateResponse(end=writer.end())
        finally:
            # A caller that cancels, disconnects or runs out of time frees its place at the next step.
            handle.cancel()

    async def ListModels(
        self, request: generation_pb2.ListModelsRequest, context: Context
    ) -> generation_pb2.ListModelsResponse:
        models = [await self._listed(name) for name in await self._engine.catalog.refreshed_names()]
        return generation_pb2.ListModelsResponse(models=models)

    async def GetModel(
        self, request: generation_pb2.GetModelRequest, context: Context
    ) -> generation_pb2.GetModelResponse:
        info = await self._engine.catalog.describe(request.name)
        return generation_pb2.GetModelResponse(model=self._model(info))

    async def LoadModel(
        self, request: generation_pb2.LoadModelRequest, context: Context
    ) -> generation_pb2.LoadModelResponse:
        info = await self._engine.catalog.describe(request.name)
        await self._engine.load(info)
        return generation_pb2.LoadModelResponse(model=self._model(info))

    async def UnloadModel(
        self, request: generation_pb2.UnloadModelRequest, context: Context
    ) -> generation_pb2.UnloadModelResponse:
        name = request.name or self._engine.catalog.default_name
        if self._engine.holds(name):
            await self._engine.unload(name)
        else:
            await self._engine.catalog.refreshed_names()
            self._engine.catalog.get(name)  # Says what is wrong with the name.
        return generation_pb2.UnloadModelResponse(model=await self._listed(name))

    async def GetEngineStatus(
        self, request: generation_pb2.GetEngineStatusRequest, context: Context
    ) -> generation_pb2.GetEngineStatusResponse:
        return converters.engine_status(self._engine.status())

    async def _listed(self, name: str) -> generation_pb2.Model:
        try:
            return self._model(await self._engine.catalog.describe(name))
        except ServiceError as error:
            is_default = name == self._engine.catalog.default_name
            return converters.unusable_model(name, error.message, is_default=is_default)

    def _model(self, info: ModelInfo) -> generation_pb2.Model:
        return converters.model(
            info,
            is_default=info.name == self._engine.catalog.default_name,
            is_loaded=self._engine.is_loaded(info),
        )
