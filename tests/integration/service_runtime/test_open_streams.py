"""What becomes of a stream whose token is revoked or expires while it is open, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dgx_music.channel import connect
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from dgx_music.generation.v1 import generation_pb2, generation_pb2_grpc
from service_runtime.access.caller import Scope
from service_runtime.rpc.server import serve_services
from service_runtime.settings import Settings
from tests.support.access_services import EmptyAnswers, TokenRegistry, bearer, own_services
from tests.support.scripted_service import ScriptedService

EXPORT = "dgx_music.export.v1.ExportService"
PATIENCE_SECONDS = 60.0
"""Nothing else would end a stream. That it takes 5 s at most on an idle machine follows from the intervals."""


@pytest.fixture
async def registry() -> TokenRegistry:
    return TokenRegistry()


@pytest.fixture
async def service() -> ScriptedService:
    return ScriptedService()


@pytest.fixture
async def channel(registry: TokenRegistry, service: ScriptedService, tmp_path: Path) -> AsyncIterator[grpc.aio.Channel]:
    export = EmptyAnswers(next(service for service in own_services() if service.full_name == EXPORT))
    settings = Settings(data_dir=tmp_path, require_tokens=True, grace_seconds=0.1)
    async with (
        serve_services([registry, service, export], ["127.0.0.1:0"], settings) as bound,
        connect(bound[0]) as channel,
    ):
        yield channel


async def test_streams_of_every_kind_end_after_revocation_and_expiry(
    channel: grpc.aio.Channel, registry: TokenRegistry, service: ScriptedService
) -> None:
    service.behaviour = lambda context: asyncio.Event().wait()  # After its first response, it has none for hours.
    revoked, kept = registry.issue(Scope.ADMIN), registry.issue(Scope.ADMIN)
    expiring = registry.issue(Scope.ADMIN, lifetime_seconds=2)
    async with AsyncExitStack() as stack:
        opened = {}
        for token in (revoked, expiring, kept):
            for name, call in open_streams(channel, token).items():
                stack.callback(call.cancel)
                opened[token, name] = call
        await asyncio.gather(*(first_response(call) for (_, name), call in opened.items() if name != "upload"))
        registry.revoke(revoked)
        ending = [call.code() for (token, _), call in opened.items() if token != kept]
        codes = await asyncio.wait_for(asyncio.gather(*ending), PATIENCE_SECONDS)
        assert set(codes) == {grpc.StatusCode.UNAUTHENTICATED}
        assert not any(call.done() for (token, _), call in opened.items() if token == kept)
    await asyncio.wait_for(service.closed.wait(), PATIENCE_SECONDS)  # The work of the stream has ended with it.


def open_streams(channel: grpc.aio.Channel, token: str) -> dict[str, Any]:
    """Returns an open call of each kind of stream."""
    shown = {"metadata": bearer(token), "timeout": 600}
    health: Any = health_pb2_grpc.HealthStub(channel)
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    generation = generation_pb2_grpc.GenerationServiceStub(channel)
    return {
        "watch": health.Watch(health_pb2.HealthCheckRequest(), **shown),
        "reflection": reflection.ServerReflectionInfo(one_question(), **shown),
        "upload": export_pb2_grpc.ExportServiceStub(channel).ImportClip(endless_upload(), **shown),
        "audio": generation.Generate(generation_pb2.GenerateRequest(), **shown),
    }


async def one_question() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
    yield reflection_pb2.ServerReflectionRequest(list_services="")
    await asyncio.Event().wait()


async def endless_upload() -> AsyncIterator[export_pb2.ImportClipRequest]:
    yield export_pb2.ImportClipRequest(data=b"RIFF")
    await asyncio.Event().wait()


async def first_response(call: Any) -> None:
    assert await call.read() is not grpc.aio.EOF
