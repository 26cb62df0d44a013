"""Fault 7: every change that a generation's state does not allow is FAILED_PRECONDITION, and with a token that is not
its lease's ABORTED. The row stays as it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from sqlalchemy import text

from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db.database import Database
from tests.support.storage_servers import storage_server

NEW = pb.CreateGenerationRequest(
    prompt="a calm piano", model_name="sketch", duration_seconds=1, sample_rate_hz=32000, channels=2
)
CLAIM = pb.ClaimGenerationRequest(worker_id="w", model_names=["sketch"], lease_seconds=60)
ABORTED, ILLEGAL = grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION

EXPECTED = {
    # Without a lease, no worker has a token that could be right.
    "pending": {"renew": ABORTED, "complete": ABORTED, "fail": ABORTED, "hand_back": ABORTED, "retry": ILLEGAL},
    "processing": {"retry": ILLEGAL, "delete": ILLEGAL},
    "completed": {"renew": ILLEGAL, "fail": ILLEGAL, "hand_back": ILLEGAL, "retry": ILLEGAL, "cancel": ILLEGAL},
    "failed": {"renew": ILLEGAL, "complete": ILLEGAL, "fail": ILLEGAL, "hand_back": ILLEGAL, "cancel": ILLEGAL},
    "cancelled": {"complete": ILLEGAL, "fail": ILLEGAL, "hand_back": ILLEGAL, "retry": ILLEGAL, "cancel": ILLEGAL},
}
"""State → the calls that it does not allow, made with the token of the last lease."""


class Generation:
    """One generation, and the token of its last lease."""

    def __init__(self, stub: StorageServiceStub, key: str) -> None:
        self._stub, self.key, self.token = stub, key, "none"

    def call(self, name: str) -> Awaitable[Any]:
        lease = {"id": self.key, "lease_token": self.token}
        failure = {**lease, "error_message": "it broke"}
        match name:
            case "renew":
                return self._stub.RenewLease(pb.RenewLeaseRequest(**lease, lease_seconds=60), timeout=60)
            case "complete":
                request = pb.CompleteGenerationRequest(**lease, file_path="a.wav", file_size_bytes=1)
                return self._stub.CompleteGeneration(request, timeout=60)
            case "fail":
                return self._stub.FailGeneration(pb.FailGenerationRequest(**failure), timeout=60)
            case "hand_back":
                return self._stub.FailGeneration(pb.FailGenerationRequest(**failure, handed_back=True), timeout=60)
            case "retry":
                return self._stub.RetryGeneration(pb.RetryGenerationRequest(id=self.key), timeout=60)
            case "cancel":
                return self._stub.CancelGeneration(pb.CancelGenerationRequest(id=self.key), timeout=60)
            case _:
                return self._stub.DeleteGeneration(pb.DeleteGenerationRequest(id=self.key), timeout=60)

    async def bring_to(self, state: str) -> None:
        if state != "pending":
            claimed = await self._stub.ClaimGeneration(CLAIM, timeout=60)
            assert claimed.generation.id == self.key
            self.token = claimed.lease_token
        if end := {"completed": "complete", "failed": "fail", "cancelled": "cancel"}.get(state):
            await self.call(end)


@pytest.mark.parametrize("empty_url", ["sqlite", pytest.param("postgres", marks=pytest.mark.slow)], indirect=True)
async def test_illegal_changes_are_rejected_and_change_nothing(
    url: str, address: str, database: Database, is_clean: Callable[[], bool]
) -> None:
    def stored(key: str) -> object:
        with database.read() as session:
            return session.execute(text("SELECT * FROM generations WHERE id = :id"), {"id": key}).one()._asdict()

    async with storage_server(url, address), connect(address) as channel:
        stub = StorageServiceStub(channel)
        for state in ("processing", "completed", "failed", "cancelled", "pending"):
            generation = Generation(stub, (await stub.CreateGeneration(NEW, timeout=60)).generation.id)
            await generation.bring_to(state)
            before, codes = stored(generation.key), {}
            for name in EXPECTED[state]:
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await generation.call(name)
                codes[name] = raised.value.code()
            assert codes == EXPECTED[state]
            generation.token = "of somebody else"
            for name in ("renew", "complete", "fail", "hand_back"):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await generation.call(name)
                assert raised.value.code() is ABORTED
            assert stored(generation.key) == before
    assert is_clean()
