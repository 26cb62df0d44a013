"""How soon a server whose event loop is busy accepts calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.rpc import server as server_module
from service_runtime.rpc.load import accepting_server
from service_runtime.settings import Settings
from tests.support.scripted_service import ScriptedService, serving_channel

SERVICE = b"/dgx_music.generation.v1.GenerationService/"


async def test_calls_of_a_method_are_asked_for_ahead_once_it_has_been_called(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []

    def build(*arguments: Any) -> Any:
        built.append(accepting_server.build_server(*arguments))
        return built[-1]

    monkeypatch.setattr(server_module, "build_server", build)
    async with serving_channel(service, settings) as channel:
        stub = rpc.GenerationServiceStub(channel)
        for _ in range(2):  # At once, and so many that those asked for ahead do not suffice.
            calls = [stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(60)]
            await asyncio.gather(*calls)
        asked_for = built[0]._server._requests
        assert len(asked_for[SERVICE + b"ListModels"]) == accepting_server.CALLS_AHEAD > 8
        assert len(asked_for[SERVICE + b"GetModel"]) == 1


def test_grpcio_is_a_version_with_which_calls_are_asked_for_ahead() -> None:
    """If this fails, see whether the class that `accepting_server` extends has changed in the new version, run this
    file and `make bench-gateway`, and add the version there."""
    assert accepting_server.can_ask_ahead()


async def test_other_version_of_grpcio_gets_the_server_of_grpcio(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accepting_server, "TRIED_VERSIONS", ())
    server = accepting_server.build_server([], [])
    assert not isinstance(server._server, accepting_server._AcceptingServer)
    await server.stop(None)
    async with serving_channel(service, settings) as channel:
        await rpc.GenerationServiceStub(channel).ListModels(pb.ListModelsRequest(), timeout=60)
