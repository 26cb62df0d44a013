"""The right to work on one generation, kept by renewing it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum

import grpc
import grpc.aio

from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

CALL_SECONDS = 5.0
"""Longest that one call to storage may take."""

REFUSALS = (grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
"""How storage says that the generation is not ours any more."""


class Loss(Enum):
    """Why a lease is gone."""

    CANCELLED = "cancelled"
    """Somebody cancelled the generation."""
    STALE = "no longer ours"
    """Another attempt has it, or somebody cancelled or deleted it in the meantime."""
    EXPIRED = "lease expired"
    """Storage could not be reached until the lease was over by our own clock."""


class Lease:
    """A claim's lease. It counts from before each renewal was sent, so it ends here no later than in the database."""

    def __init__(
        self,
        storage: storage_pb2_grpc.StorageServiceAsyncStub,
        generation_id: str,
        token: str,
        *,
        seconds: float,
        renew_interval_seconds: float,
    ) -> None:
        self.generation_id = generation_id
        self.token = token
        self._storage = storage
        self._seconds = seconds
        self._interval = renew_interval_seconds
        self._ends_at = time.monotonic() + seconds

    @property
    def seconds_left(self) -> float:
        """Seconds until it ends without a renewal; 0 if it has ended."""
        return max(0.0, self._ends_at - time.monotonic())

    async def keep(self, report: Callable[[], tuple[storage_pb2.GenerationStage, float]]) -> Loss:
        """Renews it until it is lost, with the stage and progress that `report` gives."""
        is_storage_away = False
        while True:
            await asyncio.sleep(min(self._interval, self.seconds_left))
            if not self.seconds_left:
                return Loss.EXPIRED
            stage, progress = report()
            sent_at = time.monotonic()
            try:
                renewed = await self._storage.RenewLease(
                    storage_pb2.RenewLeaseRequest(
                        id=self.generation_id,
                        lease_token=self.token,
                        lease_seconds=self._seconds,
                        stage=stage,
                        progress=progress,
                    ),
                    timeout=min(CALL_SECONDS, self.seconds_left),
                )
            except grpc.aio.AioRpcError as error:
                if error.code() in REFUSALS:
                    return Loss.STALE
                if not is_storage_away:
                    log.warning("lease not renewed", code=error.code().name, error=error.details())
                is_storage_away = True
                continue
            if renewed.cancelled:
                return Loss.CANCELLED
            is_storage_away = False
            self._ends_at = sent_at + self._seconds
