"""The changes of a generation that any caller may request: cancel, retry, delete; metadata, rating and file.

Every transition is a single UPDATE whose conditions include the state it starts from; its row count decides. Only if it
changed no row is the row read, to report why. What requires a lease is in `leases.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Update, delete, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from dgx_music.errors import Aborted, NotFound
from dgx_music.limits import MAX_RATING
from service_runtime.validation import check_range, check_uuid
from storage_service.db.clock import now
from storage_service.db.models import FINISHED_COLUMNS, REFRESH_FROM_RETURNING, Generation
from storage_service.domain import queue
from storage_service.domain.merge_patch import merge_patch
from storage_service.domain.queue_limits import QueueLimits, count_usage, require_room
from storage_service.domain.request_validation import MAX_MERGED_METADATA_BYTES, check_metadata, check_sha256
from storage_service.domain.sharing import job_checkpoints
from storage_service.events.changes import Change, record_change
from storage_service.search.musical_properties import musical_columns
from storage_service.states import (
    CANCEL,
    DELETABLE_STATES,
    RETRY,
    UPDATE_FILE,
    GenerationStatus,
    Transition,
    illegal_transition_error,
)

MAX_FILE_BYTES = 2**40
"""A database adds the sizes of all files in 64 bits."""
MAX_BACKOFF_DOUBLINGS = 6
"""The retry delay doubles with each attempt, from 1 s up to 64 s."""

UNLEASED_COLUMNS = {
    "lease_token": None,
    "lease_expires_at": None,
    "lease_check_at": None,
    "stage": None,
    "progress": 0.0,
}
"""Columns of a row that no worker holds a lease for."""


def get(session: Session, generation_id: str) -> Generation:
    """Returns the generation in its current state. Raises NotFound if there is none with this id."""
    generation = session.get(Generation, check_uuid("id", generation_id), populate_existing=True)
    if generation is None:
        raise NotFound("generation", generation_id)
    return generation


def cancel(session: Session, generation_id: str) -> Generation:
    """PENDING or PROCESSING → CANCELLED. Keeps the token, so that its holder learns of it at the next renewal."""
    values = {"completed_at": now(), "not_before": None, **FINISHED_COLUMNS}
    return _request_transition(session, generation_id, CANCEL, status=GenerationStatus.CANCELLED, **values)


def retry(
    session: Session, generation_id: str, more_attempts: int = 3, *, limits: QueueLimits | None = None
) -> Generation:
    """FAILED → PENDING with `more_attempts`. Their numbers go on, so that earlier attempts stay superseded.

    It enters the queue anew: raises ResourceExhausted if its client or the queue has no room within `limits`.
    """
    row = get(session, generation_id)
    if row.status not in RETRY.sources:
        raise illegal_transition_error(row.id, RETRY.name, row.status, RETRY.sources)
    queue.lock_client(session, row.client)
    state = queue.read_state(session, row.client, row.model_name, row.priority)
    if limits is not None:
        require_room(session, limits, state, row.client, [row.duration_seconds])
    retried = _request_transition(
        session,
        generation_id,
        RETRY,
        status=GenerationStatus.PENDING,
        ranked_at=queue.compute_rank(state, row.priority),
        max_attempts=Generation.attempt + more_attempts,
        started_at=None,
        completed_at=None,
        not_before=None,
        error_message=None,
        worker_id=None,
        **UNLEASED_COLUMNS,
    )
    count_usage(session, state, row.client, row.duration_seconds)
    return retried


def update_metadata(session: Session, generation_id: str, patch: Mapping[str, Any]) -> Generation:
    """Merges a patch (RFC 7386) into the metadata, in any state. Nothing else changes."""
    check_metadata("metadata", patch)
    generation_id = check_uuid("id", generation_id)
    # The row is locked so that its metadata can't change between the merge and the write.
    metadata = session.scalar(select(Generation.metadata_).where(Generation.id == generation_id).with_for_update())
    merged = merge_patch(metadata or {}, patch)
    check_metadata("metadata", merged, max_bytes=MAX_MERGED_METADATA_BYTES)
    updated = transition(session, [Generation.id == generation_id], metadata_=merged)
    if updated is None:
        raise NotFound("generation", generation_id)
    return updated


def update_file(
    session: Session,
    generation_id: str,
    file_size_bytes: int,
    file_sha256: str,
    *,
    previous_sha256: str | None = None,
    patch: Mapping[str, Any] | None = None,
) -> Generation:
    """Records the new size and hash of the file of a COMPLETED generation, and merges `patch` (RFC 7386) into its
    metadata. Nothing else changes.

    Raises Aborted if the recorded hash is neither `previous_sha256` nor the new one; None allows any.
    """
    check_range("file_size_bytes", file_size_bytes, 1, MAX_FILE_BYTES)
    check_sha256("file_sha256", file_sha256)
    check_metadata("metadata", patch or {})
    generation_id = check_uuid("id", generation_id)
    metadata = session.scalar(select(Generation.metadata_).where(Generation.id == generation_id).with_for_update())
    expected = (previous_sha256, file_sha256)  # The new one if the call is repeated.
    if metadata is not None and previous_sha256 is not None and metadata.get("file_sha256", "") not in expected:
        raise Aborted(
            f"another edit of the file of generation {generation_id} was recorded meanwhile; edit it once more",
            reason="FILE_CHANGED",
            metadata={"generation_id": generation_id},
        )
    # No limit on the metadata: the file has changed already, and a hash that differs from it would report damage.
    merged = merge_patch(metadata or {}, {**(patch or {}), "file_sha256": file_sha256})
    values = {"file_size_bytes": file_size_bytes, "metadata_": merged}
    return _request_transition(session, generation_id, UPDATE_FILE, **values)


def rate(session: Session, generation_id: str, rating: int) -> Generation:
    """Sets the rating, 1 to 5, or removes it (0), in any state. Nothing else changes."""
    check_range("rating", rating, 0, MAX_RATING)
    generation_id = check_uuid("id", generation_id)
    rated = transition(session, [Generation.id == generation_id], rating=rating or None)
    if rated is None:
        raise NotFound("generation", generation_id)
    return rated


def remove(session: Session, generation_id: str, states: frozenset[GenerationStatus] = DELETABLE_STATES) -> None:
    """Deletes the row if it is in one of `states`, which must be a subset of DELETABLE_STATES."""
    generation = get(session, generation_id)
    statement = delete(Generation).where(Generation.id == generation.id, Generation.status.in_(states))
    removed = session.execute(statement, execution_options={"synchronize_session": False})
    assert isinstance(removed, CursorResult)
    if removed.rowcount == 0:
        raise illegal_transition_error(generation.id, "delete", get(session, generation_id).status, states)
    session.expunge(generation)
    record_change(session, Change(generation.id, generation.model_name, is_claimable=False))


def transition(
    session: Session, where: Sequence[ColumnElement[bool]], *, due_seconds: float | None = None, **values: Any
) -> Generation | None:
    """Updates the row that fulfils `where` in a single statement. Returns it, or None if there is none."""
    if "metadata_" in values:
        values |= musical_columns(values["metadata_"])
    return run_transition(session, update(Generation).where(*where).values(**values), None, due_seconds)


def run_transition(
    session: Session,
    statement: Update,
    parameters: Mapping[str, Any] | None,
    due_seconds: float | None,
) -> Generation | None:
    """Does what `transition` does, by the UPDATE with its parameters."""
    returning = statement.returning(Generation)
    updated = session.scalars(returning, parameters, execution_options=REFRESH_FROM_RETURNING).one_or_none()
    if updated is not None:
        # A first attempt has one only after it was handed back, and then only a user can end the generation.
        if updated.is_finished and updated.attempt > (0 if updated.status is GenerationStatus.CANCELLED else 1):
            job_checkpoints.drop(session, [updated.id])
        if updated.not_before is not None:
            due_seconds = max(due_seconds or 0.0, 2.0 ** min(updated.attempt - 1, MAX_BACKOFF_DOUBLINGS))
        claimable = updated.is_pending and updated.not_before is None
        record_change(session, Change(updated.id, updated.model_name, is_claimable=claimable, due_seconds=due_seconds))
    return updated


def _request_transition(session: Session, generation_id: str, requested: Transition, **values: Any) -> Generation:
    """Performs a transition that needs no lease."""
    generation_id = check_uuid("id", generation_id)
    updated = transition(session, [Generation.id == generation_id, Generation.status.in_(requested.sources)], **values)
    if updated is None:
        current = get(session, generation_id).status
        raise illegal_transition_error(generation_id, requested.name, current, requested.sources)
    return updated
