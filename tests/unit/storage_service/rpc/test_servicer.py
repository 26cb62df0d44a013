"""What the servicer takes from the call itself: for whom it is made, and the trace that it is part of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from dgx_music.errors import ResourceExhausted
from dgx_music.storage.v1 import storage_pb2 as pb
from service_runtime.access.caller import Caller, Scope, calling_as
from storage_service.async_store import Store
from storage_service.config import StorageSettings
from storage_service.domain.queue_limits import QueueLimits
from storage_service.domain.sharing.preemption import Preemption
from storage_service.rpc.servicer import StorageServicer

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REQUEST = pb.CreateGenerationRequest(
    prompt="piano", model_name="sketch", duration_seconds=4, sample_rate_hz=32000, channels=2
)


class Call:
    """A call with this metadata."""

    def __init__(self, *metadata: tuple[str, str]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata


def call(*metadata: tuple[str, str]) -> Any:
    return cast("Any", Call(*metadata))


@pytest.mark.parametrize(
    ("sent", "stored"),
    [((("traceparent", TRACE),), TRACE), ((("traceparent", "nonsense"),), ""), ((("other", TRACE),), "")],
)
async def test_client_and_trace_are_stored_and_given_to_the_worker(
    tmp_path: Path, sent: tuple[tuple[str, str], ...], stored: str
) -> None:
    store = Store(StorageSettings(data_dir=tmp_path))
    await store.open()
    servicer = StorageServicer(store, 3, QueueLimits(10, 2), Preemption(0.0))
    with calling_as(Caller(Scope.GENERATE, "studio")):
        await servicer.CreateGeneration(REQUEST, call(*sent))
        await servicer.BatchCreateGenerations(pb.BatchCreateGenerationsRequest(requests=[REQUEST]), call())
        with pytest.raises(ResourceExhausted):
            await servicer.CreateGeneration(REQUEST, call())
    with calling_as(Caller(Scope.GENERATE, "other")):
        await servicer.CreateGeneration(REQUEST, call())
    listed = await servicer.ListGenerations(pb.ListGenerationsRequest(client="studio"), call())
    assert [row.client for row in listed.generations] == ["studio"] * 2
    claim = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=30)
    claimed = await servicer.ClaimGeneration(claim, call())
    assert (claimed.generation.client, claimed.trace_parent) == ("studio", stored)
    await store.close()
