"""Fixtures for a real server that runs a `ScriptedService`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.generation.v1 import generation_pb2_grpc
from service_runtime.rpc.health import health_monitor
from service_runtime.settings import Settings
from tests.support.scripted_service import ScriptedService, serving_channel


@pytest.fixture
async def service() -> ScriptedService:
    """Async, because the service needs a running loop."""
    return ScriptedService()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, grace_seconds=5)


@pytest.fixture
async def channel(service: ScriptedService, settings: Settings) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server that runs `service`."""
    async with serving_channel(service, settings) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> generation_pb2_grpc.GenerationServiceAsyncStub:
    return generation_pb2_grpc.GenerationServiceStub(channel)


@pytest.fixture
def fast_health_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_monitor, "HEALTH_PERIOD_SECONDS", 0.05)
