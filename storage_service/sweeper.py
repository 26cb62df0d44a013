"""Sees that what comes due is seen to: leases that end, waits for another attempt that are over."""

from __future__ import annotations

from sqlalchemy.orm import Session

from dgx_music.errors import ServiceError
from service_runtime.observability.logging import get_logger
from storage_service.async_store import Store
from storage_service.db.models import Generation
from storage_service.domain import leases, queue

log = get_logger(__name__)

_SHORTEST_PAUSE_SECONDS = 0.01
"""Between two sweeps, where another server is just about to move what is due."""


async def sweep(store: Store, period_seconds: float) -> None:
    """Sweeps at every moment that something comes due, and at least once a period; until it is cancelled."""
    while True:
        pause_seconds = period_seconds
        try:
            expired, models, due_seconds = await store.write(_sweep_once)
        except ServiceError as error:
            log.warning("sweep failed", error=error.message)
        else:
            for generation in expired:
                log.warning("lease expired", generation_id=generation.id, worker_id=generation.worker_id)
            store.notifier.wake_claimers(models)
            if due_seconds is not None:
                pause_seconds = min(period_seconds, max(due_seconds, _SHORTEST_PAUSE_SECONDS))
        await store.notifier.wait_for_sweep(pause_seconds)


def _sweep_once(session: Session) -> tuple[list[Generation], list[str], float | None]:
    return leases.expire_leases(session), queue.models_with_work(session), queue.seconds_until_due(session)
