"""The servicer of GenerationService: proto in, engine call, proto out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from generation_service import convert
from generation_service.engine import Engine
from generation_service.request import parameters
from service_runtime.pcm import PcmWriter

Context = grpc.aio.ServicerContext[Any, Any]


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Answers from the engine. Errors are raised as ServiceError; the server maps them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncIterator[generation_pb2.GenerateResponse]:
        info = self._engine.catalog.choose(request.model_name).info
        seed = request.seed if request.HasField("seed") else None
        asked = parameters(info, request.prompt, request.duration_seconds, seed)
        handle = self._engine.submit(info.name, asked)
        writer = PcmWriter(info.channels)
        try:
            header = convert.audio_header(str(uuid.uuid4()), 1, handle)
            yield generation_pb2.GenerateResponse(header=header)
            yield generation_pb2.GenerateResponse(progress=convert.progress(handle, writer.frames))
            async for block in handle:
                for chunk in writer.chunks(convert.pcm(block)):
                    yield generation_pb2.GenerateResponse(chunk=chunk)
                yield generation_pb2.GenerateResponse(progress=convert.progress(handle, writer.frames))
            yield generation_pb2.GenerateResponse(end=writer.end())
        finally:
            # A caller that cancels, disconnects or runs out of time frees its place at the next step.
            handle.cancel()

    async def ListModels(
        self, request: generation_pb2.ListModelsRequest, context: Context
    ) -> generation_pb2.ListModelsResponse:
        models = [self._model(name) for name in self._engine.catalog.names]
        return generation_pb2.ListModelsResponse(models=models)

    async def GetModel(
        self, request: generation_pb2.GetModelRequest, context: Context
    ) -> generation_pb2.GetModelResponse:
        return generation_pb2.GetModelResponse(model=self._model(request.name))

    async def GetEngineStatus(
        self, request: generation_pb2.GetEngineStatusRequest, context: Context
    ) -> generation_pb2.GetEngineStatusResponse:
        return convert.engine_status(self._engine.status())

    def _model(self, name: str) -> generation_pb2.Model:
        info = self._engine.catalog.get(name).info
        return convert.model(
            info,
            is_default=info.name == self._engine.catalog.default_name,
            is_loaded=self._engine.is_loaded(info.name),
        )
