"""Every method in every state, and the validation of ids and tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from dgx_music.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import leases, lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.sharing.hand_back import hand_back as return_job
from storage_service.states import GenerationStage, GenerationStatus

TOKEN = "0123456789abcdef0123456789abcdef"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = GenerationStatus

DONE = Completion("2026/01/01/a.wav", 1000, 2.5, "1", {"bpm": 90})

Row = Callable[..., Generation]
New = Callable[..., NewGeneration]


def claim(session: Session, row: Generation) -> Any:
    return leases.claim(session, "worker", ["sketch"], 30.0)


def renew(session: Session, row: Generation, token: str = TOKEN) -> Any:
    return leases.renew(session, row.id, token, 30.0, GenerationStage.GENERATING, 0.5)


def complete(session: Session, row: Generation, token: str = TOKEN) -> Any:
    return leases.complete(session, row.id, token, DONE)


def fail(session: Session, row: Generation, token: str = TOKEN) -> Any:
    return leases.fail(session, row.id, token, "it broke", retryable=False)


def fail_retryable(session: Session, row: Generation, token: str = TOKEN) -> Any:
    return leases.fail(session, row.id, token, "it broke", retryable=True)


def hand_back(session: Session, row: Generation, token: str = TOKEN) -> Any:
    return return_job(session, row.id, token, "shutting down")


def cancel(session: Session, row: Generation) -> Any:
    return lifecycle.cancel(session, row.id)


def retry(session: Session, row: Generation) -> Any:
    return lifecycle.retry(session, row.id)


def remove(session: Session, row: Generation) -> Any:
    return lifecycle.remove(session, row.id)


WORKERS = [renew, complete, fail, fail_retryable, hand_back]

# The result of each method in each state. "stale": ABORTED; "illegal": FAILED_PRECONDITION; "none": no change.
EXPECTED: dict[Any, dict[GenerationStatus, Any]] = {
    claim: {PENDING: PROCESSING, PROCESSING: "none", COMPLETED: "none", FAILED: "none", CANCELLED: "none"},
    renew: {PENDING: "stale", PROCESSING: PROCESSING, COMPLETED: "illegal", FAILED: "illegal", CANCELLED: "none"},
    complete: {PENDING: "stale", PROCESSING: COMPLETED, COMPLETED: "none", FAILED: "illegal", CANCELLED: "illegal"},
    fail: {PENDING: "stale", PROCESSING: FAILED, COMPLETED: "illegal", FAILED: "illegal", CANCELLED: "illegal"},
    fail_retryable: {
        PENDING: "stale",
        PROCESSING: PENDING,
        COMPLETED: "illegal",
        FAILED: "illegal",
        CANCELLED: "illegal",
    },
    hand_back: {PENDING: "stale", PROCESSING: PENDING, COMPLETED: "illegal", FAILED: "illegal", CANCELLED: "illegal"},
    cancel: {
        PENDING: CANCELLED,
        PROCESSING: CANCELLED,
        COMPLETED: "illegal",
        FAILED: "illegal",
        CANCELLED: "illegal",
    },
    retry: {PENDING: "illegal", PROCESSING: "illegal", COMPLETED: "illegal", FAILED: PENDING, CANCELLED: "illegal"},
    remove: {PENDING: "gone", PROCESSING: "illegal", COMPLETED: "gone", FAILED: "gone", CANCELLED: "gone"},
}
ALLOWED = {
    renew: "PROCESSING",
    complete: "PROCESSING",
    fail: "PROCESSING",
    fail_retryable: "PROCESSING",
    hand_back: "PROCESSING",
    cancel: "PENDING, PROCESSING",
    retry: "FAILED",
    remove: "PENDING, COMPLETED, FAILED, CANCELLED",
}


def columns(database: Database, generation_id: str) -> dict[str, Any]:
    with database.read() as session:
        row = session.get_one(Generation, generation_id)
        return {name: getattr(row, name) for name in inspect(Generation).columns.keys()}  # noqa: SIM118


@pytest.mark.parametrize("status", GenerationStatus)
@pytest.mark.parametrize("method", EXPECTED)
def test_method_follows_transition_table(
    database: Database, row_in: Row, method: Any, status: GenerationStatus
) -> None:
    row = row_in(status)
    before = columns(database, row.id)
    expected = EXPECTED[method][status]
    if expected in ("stale", "illegal"):
        error = Aborted if expected == "stale" else FailedPrecondition
        with pytest.raises(error) as raised, database.write() as session:
            method(session, row)
        assert raised.value.reason == ("STALE_LEASE" if expected == "stale" else "ILLEGAL_TRANSITION")
        assert raised.value.metadata["current_state"] == status.name
        if expected == "illegal":
            assert raised.value.metadata["allowed_states"] == ALLOWED[method]
            assert raised.value.message.endswith(f"must be {ALLOWED[method].replace(', ', ' or ')}")
    else:
        with database.write() as session:
            method(session, row)
    if expected == "gone":
        with database.read() as session, pytest.raises(NotFound):
            lifecycle.get(session, row.id)
    elif expected in ("stale", "illegal", "none"):
        assert columns(database, row.id) == before
    else:
        assert columns(database, row.id)["status"] is expected


@pytest.mark.parametrize("status", GenerationStatus)
@pytest.mark.parametrize("method", WORKERS)
def test_wrong_token_is_stale_in_every_state(
    database: Database, row_in: Row, method: Any, status: GenerationStatus
) -> None:
    row = row_in(status)
    before = columns(database, row.id)
    with pytest.raises(Aborted) as raised, database.write() as session:
        method(session, row, token="f" * 32)
    assert raised.value.reason == "STALE_LEASE"
    assert columns(database, row.id) == before


@pytest.mark.parametrize("method", WORKERS)
def test_expired_lease_is_stale_before_sweep(database: Database, row_in: Row, method: Any) -> None:
    row = row_in(PROCESSING, lease_expires_at=now_plus(-0.5))
    before = columns(database, row.id)
    with pytest.raises(Aborted), database.write() as session:
        method(session, row)
    assert columns(database, row.id) == before


@pytest.mark.parametrize("method", [*WORKERS, cancel, retry, remove])
def test_unknown_and_malformed_ids_are_rejected(database: Database, method: Any) -> None:
    with pytest.raises(NotFound), database.write() as session:
        method(session, Generation(id=UNKNOWN))
    for bad in ("", "x", UNKNOWN + "0", "../../etc/passwd", "{" + UNKNOWN + "}", "0" * 32):
        with pytest.raises(InvalidArgument) as raised, database.write() as session:
            method(session, Generation(id=bad))
        assert raised.value.field == "id"


def test_upper_case_id_is_accepted(database: Database, row_in: Row) -> None:
    row = row_in(PROCESSING)
    with database.write() as session:
        assert leases.renew(session, row.id.upper(), TOKEN, 30.0, None, 0.0) is not None
        assert lifecycle.cancel(session, row.id.upper()).id == row.id
