"""A server that is up lets go of a model before its files are deleted; without one there is nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc
from dgx_music.status import read_error_details
from gateway.cli.commands.model_unload import unload
from gateway.embedded.ownership import Owner, enter
from generation_service.config import GenerationSettings
from generation_service.models.catalog import ModelCatalog
from generation_service.rpc.server import GenerationService, build
from service_runtime.rpc.server import serve_services
from tests.support.processes import free_ports
from tests.unit.generation.tone_model import Gate, ToneModel


@pytest.fixture
def model() -> ToneModel:
    return ToneModel()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/generation.sock"


@asynccontextmanager
async def serving(model: ToneModel, address: str) -> AsyncIterator[GenerationService]:
    """With the model in memory; storage and export are away."""
    away = dict.fromkeys(("storage_address", "export_address"), f"{address}.none")
    settings = GenerationSettings(grace_seconds=0.2, **away)
    service = build(settings, catalog=ModelCatalog(lambda: [model.entry]))
    async with serve_services([service], [address], settings):
        await service.engine.load(model.info)
        yield service


@pytest.fixture
async def service(model: ToneModel, address: str) -> AsyncIterator[GenerationService]:
    async with serving(model, address) as service:
        yield service


async def test_it_is_freed_at_the_address_that_is_set(
    service: GenerationService, model: ToneModel, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGX_MUSIC_GENERATION_ADDRESS", address)
    await asyncio.to_thread(unload, "oud", None)
    assert service.engine.is_loaded(model.info)
    await asyncio.to_thread(unload, "tone", None)
    assert not service.engine.is_loaded(model.info)
    await asyncio.to_thread(unload, "tone", None)


async def test_it_stays_while_music_is_made_on_it(
    service: GenerationService, model: ToneModel, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGX_MUSIC_GENERATION_ADDRESS", address)
    gate = model.at["a", 1] = Gate()
    async with connect(address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        call = stub.Generate(pb.GenerateRequest(prompt="a", duration_seconds=3600), timeout=60)
        await gate.reached()
        asked = asyncio.create_task(asyncio.to_thread(unload, "tone", None))
        gate.open()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asked
        call.cancel()
    assert read_error_details(refused.value).reason == "MODEL_IN_USE"
    assert service.engine.is_loaded(model.info)


async def test_it_is_freed_by_the_owner_of_the_data_directory(model: ToneModel, tmp_path: Path) -> None:
    with enter(tmp_path) as owner:
        assert isinstance(owner, Owner)
        async with serving(model, owner.address) as service:
            owner.let_in(lasting=True)
            await asyncio.to_thread(unload, "tone", tmp_path)
            assert not service.engine.is_loaded(model.info)
            owner.close_door()


@pytest.mark.parametrize("is_turned_away", [False, True], ids=["nobody", "export alone"])
def test_without_a_server_nothing_is_done(
    is_turned_away: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unload("tone", tmp_path)
    assert list(tmp_path.iterdir()) == [], "no folder is left behind"
    with enter(tmp_path) as owner:
        assert isinstance(owner, Owner)
        if is_turned_away:
            owner.turn_away()
            unload("tone", tmp_path)
    unload("tone", tmp_path)
    monkeypatch.setenv("DGX_MUSIC_GENERATION_ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    unload("tone", tmp_path)
