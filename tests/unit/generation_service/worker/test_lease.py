"""What a lease learns from failed calls to storage."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import grpc
import grpc.aio
import pytest

from dgx_music.error_status import DETAILS_KEY, to_status
from dgx_music.errors import Unavailable
from dgx_music.storage.v1 import storage_pb2
from generation_service.worker.lease import Lease


def storage_error(reason: str) -> grpc.aio.AioRpcError:
    status = to_status(Unavailable("can't write", reason=reason)).SerializeToString()
    trailers = grpc.aio.Metadata((DETAILS_KEY, status))
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), trailers, "can't write")


@pytest.fixture
def lease() -> Lease:
    return Lease(Mock(), "id", "token", seconds=30.0, renew_interval_seconds=0.5)


@pytest.mark.parametrize(("reason", "is_unwritable"), [("DISK_FULL", True), ("DATABASE_LOCKED", False)])
@pytest.mark.parametrize("is_first", [True, False])
def test_action_is_called_when_storage_can_record_nothing(
    lease: Lease, reason: str, is_unwritable: bool, is_first: bool
) -> None:
    called = []
    if is_first:
        lease.when_unwritable(lambda: called.append(1))
    lease.note_failure(storage_error(reason))
    if not is_first:
        lease.when_unwritable(lambda: called.append(1))
    assert bool(called) is is_unwritable


def test_lost_connection_does_not_count(lease: Lease) -> None:
    called = []
    lease.when_unwritable(lambda: called.append(1))
    lease.note_failure(
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "Socket closed")
    )
    assert not called


class Storage:
    """Takes renewals; the first ones fail."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.renewals: asyncio.Queue[storage_pb2.RenewLeaseRequest] = asyncio.Queue()

    async def RenewLease(
        self,
        request: storage_pb2.RenewLeaseRequest,
        timeout: float,  # noqa: ASYNC109
    ) -> storage_pb2.RenewLeaseResponse:
        self.renewals.put_nowait(request)
        if self.failures:
            self.failures -= 1
            raise storage_error("DATABASE_LOCKED")
        return storage_pb2.RenewLeaseResponse()


def progress() -> tuple[storage_pb2.GenerationStage, float]:
    return storage_pb2.GENERATION_STAGE_GENERATING, 0.5


async def test_address_of_export_is_reported_at_once_and_once() -> None:
    storage = Storage()
    lease = Lease(storage, "id", "token", seconds=3600.0, renew_interval_seconds=3600.0)  # type: ignore[arg-type]
    renewing = asyncio.create_task(lease.renew_until_lost(progress))
    try:
        for address in ("export-1:50053", "export-2:50053"):
            lease.set_export_address(address)
            async with asyncio.timeout(60):
                assert (await storage.renewals.get()).export_address == address
        await lease.report_export_address(*progress())
        assert storage.renewals.empty()
    finally:
        renewing.cancel()


async def test_address_that_storage_did_not_get_is_reported_before_the_outcome() -> None:
    storage = Storage(failures=1)
    lease = Lease(storage, "id", "token", seconds=3600.0, renew_interval_seconds=3600.0)  # type: ignore[arg-type]
    lease.set_export_address("export-1:50053")
    await lease.report_export_address(*progress())  # An outage; the outcome decides.
    await lease.report_export_address(*progress())
    await lease.report_export_address(*progress())
    addresses = [storage.renewals.get_nowait().export_address for _ in range(storage.renewals.qsize())]
    assert addresses == ["export-1:50053"] * 2
