"""The lease on one claimed generation, and its renewal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any

import grpc
import grpc.aio

from dgx_music.error_status import UNWRITABLE_REASONS, read_error_details
from dgx_music.storage.v1 import storage_pb2, storage_pb2_grpc
from service_runtime.failpoints import failpoint
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

CALL_TIMEOUT_SECONDS = 5.0
"""The timeout of one call to the storage service."""

LEASE_LOST_CODES = (grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
"""The status codes with which storage says that this worker no longer holds the lease."""


class LeaseLostReason(Enum):
    """Why a lease was lost. The value is the outcome that the log shows."""

    CANCELLED = "cancelled"
    """A user cancelled the generation."""
    STALE = "lease lost"
    """Another attempt holds the lease, or the generation was cancelled or deleted in the meantime."""
    EXPIRED = "lease expired"
    """Storage was unreachable until the lease expired by the local clock."""


class Lease:
    """The lease of a claim.

    Its time counts from before each renewal was sent, so it expires here no later than in the database.
    """

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
        self._renew_interval_seconds = renew_interval_seconds
        self._expires_at = time.monotonic() + seconds
        self.export_address = ""
        """Where the export server is that receives the audio; empty if it has not said so."""
        self._unreported = asyncio.Event()
        """Whether storage has yet to learn `export_address`."""
        self._offered_models: Sequence[str] = ()
        self._on_preempted: Callable[[str], object] = lambda _: None
        self._is_unwritable = False
        """Whether storage has answered the last call that it can't record anything."""
        self._on_unwritable: Callable[[], object] | None = None

    @property
    def seconds_remaining(self) -> float:
        """Seconds until the lease expires unless it is renewed; 0 if it has expired."""
        return max(0.0, self._expires_at - time.monotonic())

    def offer(self, model_names: Sequence[str], on_preempted: Callable[[str], object]) -> None:
        """Lets storage ask to hand the generation back for one of these models. It does so once, by `on_preempted` with
        the generation that is waiting."""
        self._offered_models, self._on_preempted = model_names, on_preempted

    def set_export_address(self, address: str) -> None:
        """Has the next renewal, which follows at once, tell storage where the audio is received."""
        self.export_address = address
        self._unreported.set()

    async def report_export_address(self, *current_progress: Any) -> None:
        """Tells storage where the audio is received, unless it knows; it may fail to. The lease ends right after."""
        if self._unreported.is_set():
            with suppress(grpc.aio.AioRpcError):
                await self._renew(*current_progress)

    def note_failure(self, error: grpc.aio.AioRpcError) -> None:
        """Records that a call to storage has failed."""
        self._is_unwritable = read_error_details(error).reason in UNWRITABLE_REASONS
        if self._is_unwritable and self._on_unwritable is not None:
            self._on_unwritable()

    def when_unwritable(self, action: Callable[[], object]) -> None:
        """Calls `action` once storage answers that it can't record anything; at once if it has."""
        self._on_unwritable = action
        if self._is_unwritable:
            action()

    async def renew_until_lost(
        self, current_progress: Callable[[], tuple[storage_pb2.GenerationStage, float]]
    ) -> LeaseLostReason:
        """Renews the lease, and reports `current_progress()` with each renewal. Returns once the lease is lost."""
        is_failing = False
        while True:
            await self._wait_until_due(is_failing)
            if not self.seconds_remaining:
                return LeaseLostReason.EXPIRED
            sent_at = time.monotonic()
            failpoint("generation.before_renewal")
            try:
                renewal = await self._renew(*current_progress())
            except grpc.aio.AioRpcError as error:
                if error.code() in LEASE_LOST_CODES:
                    return LeaseLostReason.STALE
                self.note_failure(error)
                if not is_failing:
                    log.warning("lease_renewal_failed", code=error.code().name, error=error.details())
                is_failing = True
                continue
            if renewal.cancelled:
                return LeaseLostReason.CANCELLED
            is_failing = self._is_unwritable = False
            self._expires_at = sent_at + self._seconds
            if renewal.preempted_by and self._offered_models:
                self._offered_models = ()
                self._on_preempted(renewal.preempted_by)

    async def _wait_until_due(self, is_failing: bool) -> None:
        """Waits for the interval between renewals; shorter if there is news, unless the last renewal has failed."""
        seconds = min(self._renew_interval_seconds, self.seconds_remaining)
        if is_failing:
            await asyncio.sleep(seconds)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._unreported.wait()

    async def _renew(self, stage: storage_pb2.GenerationStage, progress: float) -> storage_pb2.RenewLeaseResponse:
        address = self.export_address
        renewal = await self._storage.RenewLease(
            storage_pb2.RenewLeaseRequest(
                id=self.generation_id,
                lease_token=self.token,
                lease_seconds=self._seconds,
                stage=stage,
                progress=progress,
                export_address=address if self._unreported.is_set() else "",
                model_names=self._offered_models,
            ),
            timeout=min(CALL_TIMEOUT_SECONDS, self.seconds_remaining),
        )
        if address == self.export_address:
            self._unreported.clear()
        return renewal
