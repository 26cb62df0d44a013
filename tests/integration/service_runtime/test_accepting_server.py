"""How soon a server whose event loop is busy accepts calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc as rpc
from service_runtime.rpc.load import accepting_server
from service_runtime.settings import Settings
from tests.support.scripted_service import ScriptedService, serving_channel

CALLS = 60


async def turns_to_accept(service: ScriptedService, settings: Settings) -> float:
    """Returns the turns of the event loop between two calls that the server accepts, on average."""
    loop, turns, begun = asyncio.get_running_loop(), 0, list[int]()

    def count() -> None:
        nonlocal turns
        turns += 1
        if len(begun) < CALLS:
            loop.call_soon(count)

    async def begin(context: Any) -> None:
        begun.append(turns)

    service.behaviour = begin
    async with serving_channel(service, settings) as channel:
        stub = rpc.GenerationServiceStub(channel)
        await stub.ListModels(pb.ListModelsRequest(), timeout=60)
        begun.clear()
        calls = [stub.ListModels(pb.ListModelsRequest(), timeout=60) for _ in range(CALLS)]
        await asyncio.sleep(0)
        loop.call_soon(count)
        await asyncio.gather(*calls)
    return (begun[-1] - begun[0]) / CALLS


async def test_calls_of_a_method_are_accepted_ahead(
    service: ScriptedService, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = await turns_to_accept(service, settings)
    monkeypatch.setattr(accepting_server, "CALLS_AHEAD", 1)
    one_by_one = await turns_to_accept(ScriptedService(), settings)
    assert ahead < 0.75 * one_by_one


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
