"""Unloading a model from a running server before its files are deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from dgx_music.channel import connect
from dgx_music.error_status import read_error_details
from dgx_music.generation.v1 import generation_pb2 as pb
from dgx_music.generation.v1 import generation_pb2_grpc
from gateway.cli.commands.model_unload import unload
from gateway.embedded.ownership import Owner, acquire_or_join
from generation_service.config import GenerationSettings
from generation_service.models.catalog import ModelCatalog
from generation_service.rpc.server import GenerationService, build
from service_runtime.rpc.server import serve_services
from tests.support.tone_model import Gate, ToneModel


@pytest.fixture
def model() -> ToneModel:
    return ToneModel()


@pytest.fixture
def address(tmp_path: Path) -> str:
    return f"unix:{tmp_path}/generation.sock"


@asynccontextmanager
async def serving(model: ToneModel, address: str) -> AsyncIterator[GenerationService]:
    """Serves generation with the model loaded; storage and export are unreachable."""
    unreachable = dict.fromkeys(("storage_address", "export_address"), f"{address}.none")
    settings = GenerationSettings(grace_seconds=0.2, **unreachable)
    service = build(settings, catalog=ModelCatalog(lambda: [model.entry]))
    async with serve_services([service], [address], settings):
        await service.engine.load(model.info)
        yield service


@pytest.fixture
async def service(model: ToneModel, address: str) -> AsyncIterator[GenerationService]:
    async with serving(model, address) as service:
        yield service


async def test_unload_at_configured_address_frees_model(
    service: GenerationService, model: ToneModel, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGX_MUSIC_GENERATION_ADDRESS", address)
    await asyncio.to_thread(unload, "oud", None)
    assert service.engine.is_loaded(model.info)
    await asyncio.to_thread(unload, "tone", None)
    assert not service.engine.is_loaded(model.info)
    await asyncio.to_thread(unload, "tone", None)


async def test_unload_of_model_in_use_is_rejected(
    service: GenerationService, model: ToneModel, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGX_MUSIC_GENERATION_ADDRESS", address)
    gate = model.at["a", 1] = Gate()
    async with connect(address) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        call = stub.Generate(pb.GenerateRequest(prompt="a", duration_seconds=3600), timeout=60)
        await gate.reached()
        unloading = asyncio.create_task(asyncio.to_thread(unload, "tone", None))
        gate.open()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unloading
        call.cancel()
    assert read_error_details(caught.value).reason == "MODEL_IN_USE"
    assert service.engine.is_loaded(model.info)


async def test_unload_at_owner_of_data_directory_frees_model(model: ToneModel, tmp_path: Path) -> None:
    with acquire_or_join(tmp_path) as owner:
        assert isinstance(owner, Owner)
        async with serving(model, owner.address) as service:
            owner.accept_clients(is_persistent=True)
            await asyncio.to_thread(unload, "tone", tmp_path)
            assert not service.engine.is_loaded(model.info)
            owner.stop_accepting_clients()
