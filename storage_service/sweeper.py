"""The sweeper: expires leases on time and wakes waiting claims when a retry delay ends."""

from __future__ import annotations

from sqlalchemy.orm import Session

from dgx_music.errors import ServiceError
from service_runtime.observability.logging import get_logger
from storage_service.async_store import Store
from storage_service.db.models import Generation
from storage_service.domain import leases, queue

log = get_logger(__name__)

_MIN_PAUSE_SECONDS = 0.01
"""The shortest pause between two sweeps, for when another server is about to process what is due."""


async def run_sweeper(store: Store, period_seconds: float) -> None:
    """Sweeps whenever a lease or a retry delay ends, and at least once per period, until it is cancelled."""
    while True:
        pause_seconds = period_seconds
        try:
            expired, models, due_seconds = await store.write(_sweep_once)
        except ServiceError as error:
            log.warning("sweep_failed", error=error.message)
        except Exception:  # Without sweeps, the leases of dead workers would never expire.
            log.exception("sweep_failed")
        else:
            for generation in expired:
                log.warning("lease_expired", generation_id=generation.id, worker_id=generation.worker_id)
            store.notifier.wake_claimers(models)
            if due_seconds is not None:
                pause_seconds = min(period_seconds, max(due_seconds, _MIN_PAUSE_SECONDS))
        await store.notifier.wait_for_sweep(pause_seconds)


def _sweep_once(session: Session) -> tuple[list[Generation], list[str], float | None]:
    expired = leases.expire_leases(session)
    return expired, queue.list_models_with_pending(session), queue.seconds_until_due(session)
