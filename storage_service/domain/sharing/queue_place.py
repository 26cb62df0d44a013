"""Where a pending generation is in the queue, and how long it will wait."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from storage_service.db.claim_statement import has_status
from storage_service.db.clock import now
from storage_service.db.models import Generation
from storage_service.domain.queue import list_models_with_pending
from storage_service.domain.queue_limits import measure_throughput
from storage_service.states import GenerationStatus

LAST_POSITION = 1000
"""Stands for every later one, too: so a search reads a bounded part of the queue."""
LEAST_SECONDS = 1.0
"""How long a generation has to run before it tells how fast it is made."""
_MEASURED_ROWS = 200


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """A place in the queue of all models."""

    position: int
    """1 for the generation that is claimed next."""
    wait_seconds: float
    """Until it is claimed, at the speed of late, in whole seconds; 0 if that is unknown."""


def find_place(session: Session, generation: Generation) -> QueuePlace | None:
    """Returns the place of a generation; None unless it is PENDING.

    The generations of all models are before it that have a lower rank, as a worker with all models claims them.
    """
    if generation.status is not GenerationStatus.PENDING or generation.ranked_at is None:
        return None
    is_before = or_(
        Generation.ranked_at < generation.ranked_at,
        and_(Generation.ranked_at == generation.ranked_at, Generation.created_at < generation.created_at),
    )
    before = (
        select(Generation.duration_seconds)
        .where(
            has_status(GenerationStatus.PENDING),
            Generation.model_name.in_(list_models_with_pending(session)),
            # Both: an index is searched by the first alone.
            Generation.ranked_at <= generation.ranked_at,
            is_before,
        )
        .limit(LAST_POSITION - 1)
        .subquery()
    )
    generations, waiting_seconds = session.execute(
        select(func.count(), func.coalesce(func.sum(before.c.duration_seconds), 0.0)).select_from(before)
    ).one()
    left_seconds, speed = _read_running(session)
    speed = max(speed, measure_throughput(session) or 0.0)
    wait_seconds = (waiting_seconds + left_seconds) / speed if speed else 0.0
    return QueuePlace(generations + 1, float(round(wait_seconds)))


def _read_running(session: Session) -> tuple[float, float]:
    """Returns how much audio of the generations that are being made is still to come, in seconds, and how much of it is
    made in a second.

    That speed counts beside the one of what was completed lately: while a long one is made, nothing is completed.
    """
    columns = Generation.duration_seconds, Generation.progress, Generation.started_at, now()
    running = select(*columns).where(has_status(GenerationStatus.PROCESSING)).limit(_MEASURED_ROWS)
    left_seconds = speed = 0.0
    for duration_seconds, progress, started_at, current in session.execute(running):
        left_seconds += duration_seconds * (1.0 - progress)
        elapsed = (current - started_at).total_seconds() if started_at else 0.0
        speed += duration_seconds * progress / elapsed if elapsed >= LEAST_SECONDS else 0.0
    return left_seconds, speed
