"""The moves of a generation through its states, and what anyone may ask of it.

Every move is one UPDATE that names the state it comes from; its row count decides. Only where it hit no row is the row
read, to say why. What a worker may do under its lease stands in `leases.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from dgx_music.errors import NotFound
from service_runtime.validation import check_uuid
from storage_service.db.clock import now
from storage_service.db.models import FINAL, RETURNED_ROW_WINS, Generation
from storage_service.domain.merge_patch import merge_patch
from storage_service.domain.request_validation import MAX_MERGED_METADATA_BYTES, check_metadata
from storage_service.events.changes import Change, record_change
from storage_service.states import CANCEL, DELETABLE, RETRY, GenerationStatus, Transition, illegal_transition

MAX_BACKOFF_DOUBLINGS = 6
"""A failed attempt is followed by 1 s of waiting, the next by 2 s, then 4 s … and no more than 64 s."""

FREE_OF_LEASE = {"lease_token": None, "lease_expires_at": None, "stage": None, "progress": 0.0}
"""What a row that waits has."""


def get(session: Session, generation_id: str) -> Generation:
    """The generation as it stands. NotFound if there is none."""
    generation = session.get(Generation, check_uuid("id", generation_id), populate_existing=True)
    if generation is None:
        raise NotFound("generation", generation_id)
    return generation


def cancel(session: Session, generation_id: str) -> Generation:
    """PENDING or PROCESSING → CANCELLED. The token stays, so that its holder learns of it at the next renewal."""
    ended = {"completed_at": now(), "not_before": None, **FINAL}
    return _ask(session, generation_id, CANCEL, status=GenerationStatus.CANCELLED, **ended)


def retry(session: Session, generation_id: str, more_attempts: int = 3) -> Generation:
    """FAILED → PENDING, with so many more attempts. They go on counting: who holds an earlier one stays superseded."""
    return _ask(
        session,
        generation_id,
        RETRY,
        status=GenerationStatus.PENDING,
        max_attempts=Generation.attempt + more_attempts,
        started_at=None,
        completed_at=None,
        not_before=None,
        error_message=None,
        worker_id=None,
        **FREE_OF_LEASE,
    )


def update_metadata(session: Session, generation_id: str, patch: Mapping[str, Any]) -> Generation:
    """Merges a patch (RFC 7386) into what is known of the music, in any state; nothing else changes."""
    check_metadata("metadata", patch)
    wanted = check_uuid("id", generation_id)
    # Locked, so that what is merged here is still what stands there when it is written.
    kept = session.scalar(select(Generation.metadata_).where(Generation.id == wanted).with_for_update())
    merged = merge_patch(kept or {}, patch)
    check_metadata("metadata", merged, max_bytes=MAX_MERGED_METADATA_BYTES)
    updated = move(session, [Generation.id == wanted], metadata_=merged)
    if updated is None:
        raise NotFound("generation", wanted)
    return updated


def remove(session: Session, generation_id: str, states: frozenset[GenerationStatus] = DELETABLE) -> None:
    """Removes the row if it is in one of the states, of those in which a row may be removed."""
    generation = get(session, generation_id)
    statement = delete(Generation).where(Generation.id == generation.id, Generation.status.in_(states))
    removed = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(removed, CursorResult)
    if removed.rowcount == 0:
        raise illegal_transition(generation.id, "delete", get(session, generation_id).status, states)
    session.expunge(generation)
    record_change(session, Change(generation.id, generation.model_name, is_claimable=False))


def move(
    session: Session, where: Sequence[ColumnElement[bool]], *, due_seconds: float | None = None, **values: Any
) -> Generation | None:
    """The one statement of a transition: the row after it, or None where no row was as `where` says."""
    statement = update(Generation).where(*where).values(**values).returning(Generation)
    moved = session.scalars(statement, execution_options=RETURNED_ROW_WINS).one_or_none()
    if moved is not None:
        if moved.not_before is not None:
            due_seconds = 2.0 ** min(moved.attempt - 1, MAX_BACKOFF_DOUBLINGS)
        claimable = moved.is_pending and moved.not_before is None
        record_change(session, Change(moved.id, moved.model_name, is_claimable=claimable, due_seconds=due_seconds))
    return moved


def _ask(session: Session, generation_id: str, transition: Transition, **values: Any) -> Generation:
    """A transition that anyone may ask for."""
    wanted = check_uuid("id", generation_id)
    moved = move(session, [Generation.id == wanted, Generation.status.in_(transition.sources)], **values)
    if moved is None:
        raise illegal_transition(wanted, transition.name, get(session, wanted).status, transition.sources)
    return moved
