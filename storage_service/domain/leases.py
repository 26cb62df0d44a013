"""The lease of a worker: claim, renew, complete, fail, and the expiry of leases. `sharing/hand_back.py` has its return.

Every change by a worker requires the token of a lease that has not expired by the database's clock. A worker that was
suspended for longer than its lease can't write, whether or not a sweep has found its lease expired yet.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, literal, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from dgx_music.errors import Aborted, InvalidArgument, ServiceError
from service_runtime.validation import check_range, check_text, check_uuid
from storage_service.db.claim_statement import CHECK_AFTER, claim_parameters, claim_statement, select_expired
from storage_service.db.clock import now, now_plus
from storage_service.db.models import FINISHED_COLUMNS, REFRESH_FROM_RETURNING, Generation
from storage_service.db.upsert import dialect_name
from storage_service.domain import queue
from storage_service.domain.lifecycle import (
    MAX_BACKOFF_DOUBLINGS,
    MAX_FILE_BYTES,
    UNLEASED_COLUMNS,
    get,
    run_transition,
    transition,
)
from storage_service.domain.queue_metrics import LEASE_EXPIRIES
from storage_service.domain.request_validation import (
    MAX_ERROR_CHARACTERS,
    MAX_NAME_CHARACTERS,
    check_file_path,
    check_metadata,
    check_model_names,
    check_name,
    check_server_address,
)
from storage_service.domain.sharing import job_checkpoints
from storage_service.events.changes import Change, record_change
from storage_service.states import (
    COMPLETE,
    FAIL,
    RENEW,
    GenerationStage,
    GenerationStatus,
    Transition,
    illegal_transition_error,
)

LEASE_SECONDS_RANGE = (1.0, 3600.0)
"""The shortest and the longest lease, in seconds."""

MAX_RETRY_AFTER_SECONDS = 3600.0

MAX_GENERATION_SECONDS = 1e9
"""Thirty years. A database adds the milliseconds of all generations in 64 bits."""

_LEASE_EXPIRED = "the worker stopped responding and its lease expired"


@dataclass(frozen=True)
class Completion:
    """What a worker reports about the finished file. Errors use the field names of CompleteGenerationRequest."""

    file_path: str
    file_size_bytes: int
    generation_time_seconds: float
    model_version: str
    metadata: Mapping[str, Any]

    def check(self) -> None:
        """Raises InvalidArgument for the first invalid field."""
        check_file_path("file_path", self.file_path)
        check_range("file_size_bytes", self.file_size_bytes, 1, MAX_FILE_BYTES)
        check_range("generation_time_seconds", self.generation_time_seconds, 0, MAX_GENERATION_SECONDS)
        check_text("model_version", self.model_version, MAX_NAME_CHARACTERS)
        check_metadata("metadata", self.metadata, max_bytes=None)


def check_claim(worker_id: str, model_names: Sequence[str], lease_seconds: float) -> None:
    """Raises InvalidArgument if an argument of a claim is invalid."""
    check_name("worker_id", worker_id)
    check_model_names("model_names", model_names)
    check_range("lease_seconds", lease_seconds, *LEASE_SECONDS_RANGE, "s")


def claim(session: Session, worker_id: str, model_names: Sequence[str], lease_seconds: float) -> Generation | None:
    """PENDING → PROCESSING for the next generation of these models (see `queue.py`), with a new token. None if none."""
    check_claim(worker_id, model_names, lease_seconds)
    claimed = _claim_first(session, worker_id, model_names, lease_seconds, unless_expired=True)
    if claimed is not None:
        return claimed
    # None is claimable; or a lease has expired, or another claim has locked the first.
    expire_leases(session)
    for model_name in queue.order_models_by_next_rank(session, model_names):
        claimed = _claim_first(session, worker_id, [model_name], lease_seconds)
        if claimed is not None:
            return claimed
    return None


def _claim_first(
    session: Session, worker_id: str, model_names: Sequence[str], lease_seconds: float, *, unless_expired: bool = False
) -> Generation | None:
    dialect, token = dialect_name(session), secrets.token_urlsafe(16)
    statement = claim_statement(dialect, of_one_model=len(model_names) == 1, unless_expired=unless_expired)
    parameters = claim_parameters(dialect, model_names, token, lease_seconds, worker_id)
    return run_transition(session, statement, parameters, lease_seconds)


def renew(
    session: Session,
    generation_id: str,
    lease_token: str,
    lease_seconds: float,
    stage: GenerationStage | None,
    progress: float,
    export_address: str = "",
) -> Generation | None:
    """Extends the lease and records stage and progress; a `stage` of None keeps the previous one. So does an empty
    `export_address`, which is where the audio of this attempt is received.

    Returns the generation with its new lease, or None if the generation was cancelled and the worker has to stop.
    """
    check_range("lease_seconds", lease_seconds, *LEASE_SECONDS_RANGE, "s")
    check_range("progress", progress, 0, 1)
    is_leased = lease_conditions(generation_id, lease_token)
    # Keeps the indexed time as long as it is in the second half of the lease: then Postgres writes to no index.
    latest_check = now_plus(CHECK_AFTER * lease_seconds)
    can_stay = Generation.lease_check_at.between(now_plus(lease_seconds / 2), latest_check)
    check_at = case((can_stay, Generation.lease_check_at), else_=latest_check)
    values = {"lease_expires_at": now_plus(lease_seconds), "lease_check_at": check_at, "progress": progress}
    if stage is not None:
        values["stage"] = stage.value
    if export_address:
        values["export_address"] = check_server_address("export_address", export_address)
    renewed = transition(session, is_leased, due_seconds=lease_seconds, **values)
    if renewed is not None:
        return renewed
    current = get(session, generation_id)
    if current.lease_token == lease_token and current.status is GenerationStatus.CANCELLED:
        return None
    raise lease_error(current, lease_token, RENEW)


def complete(session: Session, generation_id: str, lease_token: str, completion: Completion) -> Generation:
    """PROCESSING → COMPLETED, by the holder of the lease. A repeat with the same token returns the same."""
    completion.check()
    is_leased = lease_conditions(generation_id, lease_token)
    # The row is locked so that its metadata can't change between the merge and the write.
    metadata = session.scalar(select(Generation.metadata_).where(*is_leased).with_for_update())
    completed = transition(
        session,
        is_leased,
        status=GenerationStatus.COMPLETED,
        file_path=completion.file_path,
        file_size_bytes=completion.file_size_bytes,
        generation_time_seconds=completion.generation_time_seconds,
        model_version=completion.model_version or None,
        metadata_={**(metadata or {}), **completion.metadata},
        completed_at=now(),
        error_message=None,
        progress=1.0,
        **FINISHED_COLUMNS,
    )
    if completed is not None:
        return completed
    current = get(session, generation_id)
    if current.lease_token == lease_token and current.status is GenerationStatus.COMPLETED:
        return current
    raise lease_error(current, lease_token, COMPLETE)


def fail(
    session: Session,
    generation_id: str,
    lease_token: str,
    error_message: str,
    *,
    retryable: bool,
    retry_after_seconds: float = 0.0,
) -> Generation:
    """PROCESSING → PENDING if the failure is retryable and attempts are left, else PROCESSING → FAILED.

    By the holder of the lease. A retry waits as `retry_time` says.
    """
    message = clean_error_message(error_message)
    not_before = retry_time(retry_after_seconds)
    is_leased = lease_conditions(generation_id, lease_token)
    failed = None
    if retryable:
        failed = transition(
            session,
            [*is_leased, Generation.attempt < Generation.max_attempts],
            due_seconds=retry_after_seconds,
            status=GenerationStatus.PENDING,
            error_message=message,
            not_before=not_before,
            **UNLEASED_COLUMNS,
        )
    if failed is None:
        failed = transition(
            session,
            is_leased,
            status=GenerationStatus.FAILED,
            error_message=message,
            completed_at=now(),
            **FINISHED_COLUMNS,
        )
    if failed is None:
        raise lease_error(get(session, generation_id), lease_token, FAIL)
    return failed


def retry_time(retry_after_seconds: float) -> Any:
    """Returns when another attempt may start: in 1 s·2^(attempt-1), but at most 64 s; or in `retry_after_seconds` if
    that is longer. Raises InvalidArgument if it is out of range."""
    check_range("retry_after_seconds", retry_after_seconds, 0, MAX_RETRY_AFTER_SECONDS, "s")
    doublings = case((Generation.attempt > MAX_BACKOFF_DOUBLINGS, MAX_BACKOFF_DOUBLINGS), else_=Generation.attempt - 1)
    backoff = literal(1).bitwise_lshift(doublings)
    return now_plus(case((backoff < retry_after_seconds, literal(retry_after_seconds)), else_=backoff))


def expire_leases(session: Session) -> list[Generation]:
    """PROCESSING → PENDING, or FAILED if no attempts are left, for all expired leases. Returns these generations."""
    # Another server that sweeps at the same time handles the locked ones.
    ids = session.scalars(select_expired().with_for_update(skip_locked=True)).all()
    if not ids:  # The usual case. An UPDATE runs its triggers even if it changes no row.
        return []
    has_no_attempts_left = Generation.attempt >= Generation.max_attempts
    statement = (
        update(Generation)
        .where(Generation.id.in_(ids), Generation.status == GenerationStatus.PROCESSING)
        .values(
            status=case((has_no_attempts_left, GenerationStatus.FAILED), else_=GenerationStatus.PENDING),
            completed_at=case((has_no_attempts_left, now()), else_=None),
            ranked_at=case((has_no_attempts_left, None), else_=Generation.ranked_at),
            error_message=_LEASE_EXPIRED,
            **UNLEASED_COLUMNS,
        )
        .returning(Generation)
    )
    expired = list(session.scalars(statement, execution_options=REFRESH_FROM_RETURNING))
    LEASE_EXPIRIES.inc(by=len(expired))
    job_checkpoints.drop(session, [generation.id for generation in expired if generation.is_finished])
    for generation in expired:
        record_change(session, Change(generation.id, generation.model_name, is_claimable=generation.is_pending))
    return expired


def lease_conditions(generation_id: str, lease_token: str) -> list[ColumnElement[bool]]:
    """Returns the conditions under which the row exists and this token holds its lease."""
    if not lease_token:
        raise InvalidArgument("lease_token", "must not be empty; send the token that ClaimGeneration returned")
    check_name("lease_token", lease_token)
    return [
        Generation.id == check_uuid("id", generation_id),
        Generation.status == GenerationStatus.PROCESSING,
        Generation.lease_token == lease_token,
        Generation.lease_expires_at > now(),
    ]


def clean_error_message(error_message: str) -> str:
    """Returns the message as it can be stored. Raises InvalidArgument if there is none."""
    if not error_message.strip():
        raise InvalidArgument("error_message", "must not be empty; describe the failure for the user")
    # Postgres can't store NUL, and that must not lose an error report.
    return error_message.replace("\0", "\N{REPLACEMENT CHARACTER}")[:MAX_ERROR_CHARACTERS]


def lease_error(current: Generation, lease_token: str, requested: Transition) -> ServiceError:
    """Returns why the transition that a worker requested changed no row."""
    if current.lease_token != lease_token or current.status is GenerationStatus.PROCESSING:
        return Aborted(
            f"the lease token is no longer valid for generation {current.id}; stop working on it and claim another",
            reason="STALE_LEASE",
            metadata={"generation_id": current.id, "current_state": current.status.name},
        )
    return illegal_transition_error(current.id, requested.name, current.status, requested.sources)
