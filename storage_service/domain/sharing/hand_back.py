"""The return of a generation by its worker before it is complete."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service_runtime.validation import check_uuid
from storage_service.db.models import Generation
from storage_service.domain.leases import clean_error_message, lease_conditions, lease_error, retry_time
from storage_service.domain.lifecycle import UNLEASED_COLUMNS, get, transition
from storage_service.domain.sharing import job_checkpoints
from storage_service.states import FAIL, GenerationStatus

_NEXT_RANK = timedelta(microseconds=1)


def hand_back(
    session: Session,
    generation_id: str,
    lease_token: str,
    reason: str,
    *,
    checkpoint: bytes = b"",
    preempted_by: str = "",
    retry_after_seconds: float = 0.0,
) -> Generation:
    """PROCESSING → PENDING by a worker that stops before it is done, with what it has done.

    The generation can be claimed immediately, after `preempted_by` if that still waits; with `retry_after_seconds`,
    when `leases.retry_time` says. This attempt does not count against its maximum.
    """
    job_checkpoints.check_checkpoint(checkpoint)
    values: dict[str, Any] = dict(UNLEASED_COLUMNS)
    if retry_after_seconds:
        values["not_before"] = retry_time(retry_after_seconds)
    if preempted_by:
        rank = _rank_after(session, check_uuid("id", generation_id), check_uuid("preempted_by", preempted_by))
        values |= {} if rank is None else {"ranked_at": rank}
    handed_back = transition(
        session,
        lease_conditions(generation_id, lease_token),
        due_seconds=retry_after_seconds or None,
        status=GenerationStatus.PENDING,
        max_attempts=Generation.max_attempts + 1,
        error_message=clean_error_message(reason),
        **values,
    )
    if handed_back is None:
        raise lease_error(get(session, generation_id), lease_token, FAIL)
    if checkpoint or preempted_by:
        job_checkpoints.save(session, handed_back.id, checkpoint)
    return handed_back


def _rank_after(session: Session, generation_id: str, other_id: str) -> datetime | None:
    """Returns the rank right after that of the other one; None if the generation has a later one, or the other no
    longer waits."""
    waiting = select(Generation.ranked_at).where(
        Generation.id == other_id, Generation.status == GenerationStatus.PENDING
    )
    other = session.scalar(waiting)
    own = session.scalar(select(Generation.ranked_at).where(Generation.id == generation_id))
    return None if other is None or own is None or own > other else other + _NEXT_RANK
