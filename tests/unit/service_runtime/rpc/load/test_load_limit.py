"""Which calls the load limit counts, and what it answers, without gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from dgx_music.errors import Unavailable
from dgx_music.export.v1 import export_pb2 as _export
from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.storage.v1 import storage_pb2 as _storage
from service_runtime.rpc.load import load_limit
from service_runtime.rpc.load.load_limit import (
    CLOSING_PAUSE_SECONDS,
    HEADROOM,
    TURNS_TO_ACCEPT,
    WAITING_FACTOR,
    LoadLimit,
)
from service_runtime.settings import Settings

MUSIC = gateway_pb2.DESCRIPTOR.services_by_name["MusicService"].full_name
STORAGE, EXPORT = (
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in ((_storage, "StorageService"), (_export, "ExportService"))
)


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadLimit:
    monkeypatch.setattr(load_limit, "MAX_CLOSING_SECONDS", 60.0)
    return LoadLimit(Settings(data_dir=tmp_path, max_concurrent_calls=3, max_concurrent_streams=5), [MUSIC])


async def test_limit_is_closed_when_the_calls_at_work_have_ended(limit: LoadLimit) -> None:
    budget, streams = limit._budget_of(f"/{MUSIC}/CreateGeneration"), limit._budget_of(f"/{MUSIC}/StreamAudio")
    other = limit._budget_of(f"/{STORAGE}/GetGeneration")
    assert budget is not None
    assert streams is not None
    assert other is not None
    async with streams.occupy(), other.occupy():
        async with budget.occupy():
            closing = asyncio.create_task(limit.close())
            await asyncio.sleep(2 * TURNS_TO_ACCEPT * CLOSING_PAUSE_SECONDS)
            assert not closing.done()
        await closing


async def test_closed_limit_turns_away_what_comes_later_but_not_from_the_services_that_calls_at_work_need(
    limit: LoadLimit,
) -> None:
    await limit.close()
    with pytest.raises(Unavailable) as raised:
        await limit.intercept_service(no_such_method, Details(f"/{MUSIC}/CreateGeneration"))
    assert raised.value.reason == "SHUTTING_DOWN"
    assert await limit.intercept_service(no_such_method, Details(f"/{STORAGE}/GetGeneration")) is None


class Details(grpc.HandlerCallDetails):
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()


async def no_such_method(details: grpc.HandlerCallDetails) -> None:
    return None


def test_calls_and_streams_of_each_service_have_a_budget_of_their_own(limit: LoadLimit) -> None:
    for path, expected in {
        f"/{MUSIC}/CreateGeneration": (MUSIC, "calls", 3),
        f"/{MUSIC}/StreamAudio": (MUSIC, "streams", 5),
        f"/{MUSIC}/ImportClip": (MUSIC, "streams", 5),
        f"/{MUSIC}/Render": (MUSIC, "streams", 5),
        f"/{STORAGE}/GetGeneration": (STORAGE, "calls", 3 * HEADROOM),
        f"/{EXPORT}/StreamAudio": (EXPORT, "streams", 5 * HEADROOM),
    }.items():
        budget = limit._budget_of(path)
        assert budget is not None
        assert (budget.service, budget.kind, budget.limit) == expected
        assert budget.max_waiting == (expected[2] * WAITING_FACTOR if expected[1] == "calls" else 0)
        assert limit._budget_of(path) is budget
    assert limit._budget_of(f"/{MUSIC}/GetGeneration") is limit._budget_of(f"/{MUSIC}/CreateGeneration")


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        f"/{STORAGE}/ClaimGeneration",
        f"/{STORAGE}/RenewLease",
        f"/{EXPORT}/Export",
        "/unknown.Service/Method",
    ],
)
def test_health_and_calls_of_our_own_services_are_not_limited(limit: LoadLimit, path: str) -> None:
    assert limit._budget_of(path) is None
