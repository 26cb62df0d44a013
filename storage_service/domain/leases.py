"""What a worker does under its lease: claim, renew, complete, fail; and the leases that end without a word.

A worker's move names the token of a lease that has not ended by the database's clock: a worker that was stopped past
its lease can't write, whether or not somebody has noticed yet.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import case, literal, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from dgx_music.errors import Aborted, InvalidArgument, ServiceError
from service_runtime.validation import check_finite, check_range, check_text, check_uuid
from storage_service.db.clock import later, now
from storage_service.db.models import ENDED, FINAL, RETURNED_ROW_WINS, Generation
from storage_service.domain import queue
from storage_service.domain.lifecycle import FREE_OF_LEASE, MAX_BACKOFF_DOUBLINGS, get, move
from storage_service.domain.request_validation import (
    MAX_ERROR_CHARACTERS,
    MAX_NAME_CHARACTERS,
    check_file_path,
    check_metadata,
    check_models,
    check_name,
)
from storage_service.events.changes import Change, record_change
from storage_service.states import (
    COMPLETE,
    FAIL,
    RENEW,
    GenerationStage,
    GenerationStatus,
    Transition,
    illegal_transition,
)

LEASE_SECONDS = (1.0, 3600.0)
"""The shortest and the longest lease."""

_LEASE_EXPIRED = "the worker's lease ended without a word from it"


@dataclass(frozen=True)
class Completion:
    """What a worker says of the file that is in place. Field names in errors are CompleteGenerationRequest's."""

    file_path: str
    file_size_bytes: int
    generation_time_seconds: float
    model_version: str
    metadata: Mapping[str, Any]

    def check(self) -> None:
        """Raises InvalidArgument for the first field that is out of its range."""
        check_file_path("file_path", self.file_path)
        check_range("file_size_bytes", self.file_size_bytes, 1, 2**63 - 1)
        check_finite("generation_time_seconds", self.generation_time_seconds)
        check_text("model_version", self.model_version, MAX_NAME_CHARACTERS)
        check_metadata("metadata", self.metadata, max_bytes=None)


def check_claim(worker_id: str, model_names: Sequence[str], lease_seconds: float) -> None:
    """Raises InvalidArgument where a claim asks for what it can't have."""
    check_name("worker_id", worker_id)
    check_models("model_names", model_names)
    check_range("lease_seconds", lease_seconds, *LEASE_SECONDS, "s")


def claim(session: Session, worker_id: str, model_names: Sequence[str], lease_seconds: float) -> Generation | None:
    """PENDING → PROCESSING for the generation of the models whose turn it is (`queue.py`), with a fresh token."""
    check_claim(worker_id, model_names, lease_seconds)
    expire_leases(session)
    for model_name in queue.models_in_turn(session, model_names):
        first = queue.next_of(model_name).with_for_update(skip_locked=True).correlate(None).scalar_subquery()
        claimed = move(
            session,
            [Generation.id == first, Generation.status == GenerationStatus.PENDING],
            due_seconds=lease_seconds,
            status=GenerationStatus.PROCESSING,
            lease_token=secrets.token_urlsafe(16),
            lease_expires_at=later(lease_seconds),
            attempt=Generation.attempt + 1,
            worker_id=worker_id,
            started_at=now(),
            not_before=None,
            stage=GenerationStage.QUEUED.value,
            progress=0.0,
        )
        if claimed is not None:
            return claimed
    return None


def renew(
    session: Session,
    generation_id: str,
    lease_token: str,
    lease_seconds: float,
    stage: GenerationStage | None,
    progress: float,
) -> datetime | None:
    """Extends the lease and notes what the worker does (`stage` None leaves it). Gives None: cancelled, stop."""
    check_range("lease_seconds", lease_seconds, *LEASE_SECONDS, "s")
    check_range("progress", progress, 0, 1)
    held = _held(generation_id, lease_token)
    values = {"lease_expires_at": later(lease_seconds), "progress": progress}
    if stage is not None:
        values["stage"] = stage.value
    renewed = move(session, held, due_seconds=lease_seconds, **values)
    if renewed is not None:
        return renewed.lease_expires_at
    current = get(session, generation_id)
    if current.lease_token == lease_token and current.status is GenerationStatus.CANCELLED:
        return None
    raise _refusal(current, lease_token, RENEW)


def complete(session: Session, generation_id: str, lease_token: str, completion: Completion) -> Generation:
    """PROCESSING → COMPLETED, by the holder of the lease; a repeat with the same token gives the same."""
    completion.check()
    held = _held(generation_id, lease_token)
    # Locked, so that what is merged here is still what stands there when it is written.
    metadata = session.scalar(select(Generation.metadata_).where(*held).with_for_update())
    completed = move(
        session,
        held,
        status=GenerationStatus.COMPLETED,
        file_path=completion.file_path,
        file_size_bytes=completion.file_size_bytes,
        generation_time_seconds=completion.generation_time_seconds,
        model_version=completion.model_version or None,
        metadata_={**(metadata or {}), **completion.metadata},
        completed_at=now(),
        error_message=None,
        progress=1.0,
        **FINAL,
    )
    if completed is not None:
        return completed
    current = get(session, generation_id)
    if current.lease_token == lease_token and current.status is GenerationStatus.COMPLETED:
        return current
    raise _refusal(current, lease_token, COMPLETE)


def fail(session: Session, generation_id: str, lease_token: str, error_message: str, *, retryable: bool) -> Generation:
    """PROCESSING → PENDING, not before 1 s·2^(attempt-1), at most 64 s, from now, where a retry may help and attempts
    are left; else PROCESSING → FAILED. By the holder of the lease."""
    message = _report(error_message)
    held = _held(generation_id, lease_token)
    failed = None
    if retryable:
        doublings = case(
            (Generation.attempt > MAX_BACKOFF_DOUBLINGS, MAX_BACKOFF_DOUBLINGS), else_=Generation.attempt - 1
        )
        backoff = literal(1).bitwise_lshift(doublings)
        failed = move(
            session,
            [*held, Generation.attempt < Generation.max_attempts],
            status=GenerationStatus.PENDING,
            error_message=message,
            not_before=later(backoff),
            **FREE_OF_LEASE,
        )
    if failed is None:
        failed = move(session, held, status=GenerationStatus.FAILED, error_message=message, completed_at=now(), **ENDED)
    if failed is None:
        raise _refusal(get(session, generation_id), lease_token, FAIL)
    return failed


def hand_back(session: Session, generation_id: str, lease_token: str, reason: str) -> Generation:
    """PROCESSING → PENDING, to be claimed at once and with as many attempts left as before this one. By the holder of
    the lease: a worker that ends before its work."""
    handed_back = move(
        session,
        _held(generation_id, lease_token),
        status=GenerationStatus.PENDING,
        max_attempts=Generation.max_attempts + 1,
        error_message=_report(reason),
        **FREE_OF_LEASE,
    )
    if handed_back is None:
        raise _refusal(get(session, generation_id), lease_token, FAIL)
    return handed_back


def expire_leases(session: Session) -> list[Generation]:
    """PROCESSING → PENDING, or FAILED when the attempts are used up, where the lease has ended. Gives those moved."""
    ended = (
        select(Generation.id)
        .where(queue.in_status(GenerationStatus.PROCESSING), Generation.lease_expires_at <= now())
        .with_for_update(skip_locked=True)  # Another server that sweeps at the same moment has the rest.
    )
    ids = session.scalars(ended).all()
    if not ids:  # Nearly always; and an UPDATE costs its triggers even where it finds nothing.
        return []
    used_up = Generation.attempt >= Generation.max_attempts
    statement = (
        update(Generation)
        .where(Generation.id.in_(ids), Generation.status == GenerationStatus.PROCESSING)
        .values(
            status=case((used_up, GenerationStatus.FAILED), else_=GenerationStatus.PENDING),
            completed_at=case((used_up, now()), else_=None),
            error_message=_LEASE_EXPIRED,
            **FREE_OF_LEASE,
        )
        .returning(Generation)
    )
    expired = list(session.scalars(statement, execution_options=RETURNED_ROW_WINS))
    for generation in expired:
        record_change(session, Change(generation.id, generation.model_name, is_claimable=generation.is_pending))
    return expired


def _held(generation_id: str, lease_token: str) -> list[ColumnElement[bool]]:
    """The row, if this token holds its lease now."""
    if not lease_token:
        raise InvalidArgument("lease_token", "is empty; send the token that ClaimGeneration gave")
    check_name("lease_token", lease_token)
    return [
        Generation.id == check_uuid("id", generation_id),
        Generation.status == GenerationStatus.PROCESSING,
        Generation.lease_token == lease_token,
        Generation.lease_expires_at > now(),
    ]


def _report(error_message: str) -> str:
    if not error_message.strip():
        raise InvalidArgument("error_message", "is empty; say why, for the person who asked")
    # Postgres can't hold NUL, and an error report is not to be lost for it.
    return error_message.replace("\0", "\N{REPLACEMENT CHARACTER}")[:MAX_ERROR_CHARACTERS]


def _refusal(current: Generation, lease_token: str, transition: Transition) -> ServiceError:
    """Why a worker's transition hit no row."""
    if current.lease_token != lease_token or current.status is GenerationStatus.PROCESSING:
        return Aborted(
            f"this token no longer holds the lease of generation {current.id}; stop working on it, and claim anew",
            reason="STALE_LEASE",
            metadata={"generation_id": current.id, "current_state": current.status.name},
        )
    return illegal_transition(current.id, transition.name, current.status, transition.sources)
