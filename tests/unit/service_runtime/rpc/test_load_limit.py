"""Which calls the load limit counts, and what it answers, without gRPC."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from dgx_music.errors import ResourceExhausted
from dgx_music.export.v1 import export_pb2 as _export
from dgx_music.gateway.v1 import gateway_pb2
from dgx_music.storage.v1 import storage_pb2 as _storage
from service_runtime.rpc.load_limit import HEADROOM, MAX_RETRY_SECONDS, MIN_RETRY_SECONDS, Budget, LoadLimit
from service_runtime.settings import Settings
from tests.support.tone_model import ManualClock

MUSIC = gateway_pb2.DESCRIPTOR.services_by_name["MusicService"].full_name
STORAGE, EXPORT = (
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in ((_storage, "StorageService"), (_export, "ExportService"))
)


@pytest.fixture
def limit(tmp_path: Path) -> LoadLimit:
    return LoadLimit(Settings(data_dir=tmp_path, max_concurrent_calls=3, max_concurrent_streams=5))


def test_full_budget_refuses_with_a_time_to_retry_and_is_free_again_after_a_call() -> None:
    budget = Budget("a.Service", "calls", 1)
    with budget.occupy():
        with pytest.raises(ResourceExhausted) as raised, budget.occupy():
            pass
        assert raised.value.reason == "SERVER_BUSY"
        assert raised.value.metadata == {"service": "a.Service", "kind": "calls", "limit": "1"}
        assert raised.value.retry_after_seconds is not None
    with pytest.raises(KeyError), budget.occupy():
        raise KeyError
    budget.check()


def refuse(budget: Budget, count: int) -> list[float]:
    """Returns what so many refused callers are told to wait."""
    waits = []
    for _ in range(count):
        with pytest.raises(ResourceExhausted) as raised:
            budget.check()
        assert raised.value.retry_after_seconds is not None
        waits.append(raised.value.retry_after_seconds)
    return waits


def test_refused_callers_are_told_to_come_back_one_after_another_as_fast_as_calls_are_served() -> None:
    clock = ManualClock()
    budget = Budget("a.Service", "calls", 4, clock)
    for _ in range(200):  # Of 2 s each, so that a place is free every half second.
        with budget.occupy():
            clock.now += 2.0
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(budget.occupy())
        assert refuse(budget, 4) == pytest.approx([MIN_RETRY_SECONDS + n * 0.5 for n in (1, 2, 3, 4)], abs=0.02)
        clock.now += 2.0
        assert refuse(budget, 1) == pytest.approx([MIN_RETRY_SECONDS + 0.5], abs=0.02)
        assert max(refuse(budget, 500)) == MAX_RETRY_SECONDS


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
