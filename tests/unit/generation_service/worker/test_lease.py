"""What a lease learns from failed calls to storage."""

from __future__ import annotations

from unittest.mock import Mock

import grpc
import grpc.aio
import pytest

from dgx_music.error_status import DETAILS_KEY, to_status
from dgx_music.errors import Unavailable
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
