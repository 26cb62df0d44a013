"""What a worker does under its lease."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import inspect, select, text, update
from sqlalchemy.orm import Session

from dgx_music.errors import Aborted, InvalidArgument
from storage_service.db.clock import now, now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases, lifecycle, queue
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.sharing.hand_back import hand_back as return_job
from storage_service.events.changes import get_recorded_changes
from storage_service.states import GenerationStage, GenerationStatus

TOKEN = "0123456789abcdef0123456789abcdef"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = GenerationStatus

DONE = Completion("2026/01/01/a.wav", 1000, 2.5, "1", {"bpm": 90})

Row = Callable[..., Generation]
New = Callable[..., NewGeneration]


def renew(session: Session, row: Generation, token: str = TOKEN) -> Any:
    return leases.renew(session, row.id, token, 30.0, GenerationStage.GENERATING, 0.5)


def complete(session: Session, row: Generation, token: str = TOKEN) -> Any:
    return leases.complete(session, row.id, token, DONE)


def columns(database: Database, generation_id: str) -> dict[str, Any]:
    with database.read() as session:
        row = session.get_one(Generation, generation_id)
        return {name: getattr(row, name) for name in inspect(Generation).columns.keys()}  # noqa: SIM118


def test_claim_returns_oldest_with_new_token(database: Database, new: New) -> None:
    with database.write() as session:
        other = creation.create(session, new(model_name="other"))
        first = creation.create(session, new())
        creation.create(session, new())
    with database.write() as session:
        claimed = leases.claim(session, "me", ["sketch", "third"], 30.0)
    assert claimed is not None
    assert (claimed.id, claimed.worker_id, claimed.attempt, claimed.stage) == (first.id, "me", 1, "queued")
    assert claimed.lease_token
    assert claimed.lease_expires_at is not None
    assert claimed.started_at is not None
    assert (claimed.lease_expires_at - claimed.started_at).total_seconds() == pytest.approx(30.0, abs=1.0)
    with database.read() as session:
        assert lifecycle.get(session, other.id).is_pending


def test_renew_records_stage_and_extends_lease(database: Database, row_in: Row) -> None:
    row = row_in(PROCESSING, stage="queued")
    with database.write() as session:
        previous = row.lease_expires_at
        renewed = leases.renew(session, row.id, TOKEN, 600.0, GenerationStage.GENERATING, 0.25)
        assert renewed is not None
        assert renewed.lease_expires_at is not None
        assert previous is not None
        assert renewed.lease_expires_at > previous
        leases.renew(session, row.id, TOKEN, 600.0, None, 0.5)
    after = columns(database, row.id)
    assert (after["stage"], after["progress"]) == ("generating", 0.5)


def test_most_renewals_write_to_no_index_on_postgres(database: Database, new: New) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite writes only to the indexes of the columns that change")
    with database.write() as session:
        creation.create(session, new())
        row = leases.claim(session, "w", ["sketch"], 60.0)
        assert row is not None
    hot = text("SELECT pg_stat_get_xact_tuples_hot_updated('generations'::regclass)")
    with database.write() as session:
        for progress in range(5):
            leases.renew(session, row.id, row.lease_token or "", 60.0, GenerationStage.GENERATING, progress / 5)
        assert session.scalar(hot) == 5


def test_lease_is_looked_for_before_it_ends_or_when_it_does(database: Database, new: New) -> None:
    with database.write() as session:
        creation.create(session, new())
        row = leases.claim(session, "w", ["sketch"], 60.0)
        assert row is not None
        # As long as before; too early for half of the lease; and too late for a shorter lease.
        for seconds, half in ((60.0, 30.0), (600.0, 300.0), (20.0, 10.0)):
            renewed: Any = leases.renew(session, row.id, row.lease_token or "", seconds, None, 0.5)
            until_due = queue.seconds_until_due(session)
            assert until_due is not None
            assert half < until_due <= seconds
            assert renewed.lease_check_at < renewed.lease_expires_at


def test_lease_that_may_have_expired_is_due_when_it_does(database: Database, row_in: Row) -> None:
    row = row_in(PROCESSING, lease_check_at=now_plus(-1.0))
    with database.write() as session:
        assert leases.expire_leases(session) == []
        until_due = queue.seconds_until_due(session)
        assert until_due is not None
        assert 30 < until_due <= 60
        assert renew(session, row).lease_check_at > row.started_at


def test_renew_records_the_export_server_until_another_is_named(database: Database, row_in: Row) -> None:
    row = row_in(PROCESSING)
    with database.write() as session:
        leases.renew(session, row.id, TOKEN, 600.0, None, 0.1, "export-1:50053")
        leases.renew(session, row.id, TOKEN, 600.0, None, 0.2)
        leases.fail(session, row.id, TOKEN, "lost", retryable=True)
    # The next attempt begins there.
    assert columns(database, row.id)["export_address"] == "export-1:50053"


def test_complete_merges_metadata_and_is_idempotent(database: Database, row_in: Row) -> None:
    row = row_in(
        PROCESSING, metadata_={"bpm": 80, "mood": "calm"}, error_message="the attempt before", stage="exporting"
    )
    with database.write() as session:
        done = complete(session, row)
    assert done.metadata_ == {"bpm": 90, "mood": "calm"}
    assert (done.file_path, done.file_size_bytes, done.generation_time_seconds) == ("2026/01/01/a.wav", 1000, 2.5)
    assert (done.model_version, done.progress, done.stage, done.error_message) == ("1", 1.0, None, None)
    assert done.completed_at is not None
    with database.write() as session:
        other = Completion("other.wav", 1, 1.0, "2", {"bpm": 1})
        again = leases.complete(session, row.id, TOKEN, other)
    assert again.to_dict() == done.to_dict()


def test_retryable_failure_doubles_delay_until_attempts_run_out(database: Database, row_in: Row) -> None:
    row = row_in(PENDING, max_attempts=3)
    for attempt, wait_seconds in ((1, 1.0), (2, 2.0)):
        with database.write() as session:
            claimed = leases.claim(session, "w", ["sketch"], 30.0)
            assert claimed is not None
            assert claimed.attempt == attempt
            assert claimed.lease_token
            before = session.scalars(select(now())).one()
            failed = leases.fail(session, row.id, claimed.lease_token, "it\0broke" + "x" * 3000, retryable=True)
            assert failed.is_pending
            assert failed.not_before is not None
            assert failed.error_message is not None
            assert len(failed.error_message) == 2000
            waits_from = failed.not_before - timedelta(seconds=wait_seconds)
            assert before <= waits_from <= session.scalars(select(now())).one()
            assert failed.lease_token is None
            due_seconds = queue.seconds_until_due(session)
            assert due_seconds is not None
            assert 0 < due_seconds <= wait_seconds
            assert leases.claim(session, "w", ["sketch"], 30.0) is None
            session.execute(update(Generation).values(not_before=now_plus(-0.001)))
            assert queue.list_models_with_pending(session) == ["sketch"]
    with database.write() as session:
        claimed = leases.claim(session, "w", ["sketch"], 30.0)
        assert claimed is not None
        assert claimed.not_before is None
        assert claimed.lease_token
        last = leases.fail(session, row.id, claimed.lease_token, "it broke", retryable=True)
    assert last.is_failed
    assert last.completed_at is not None
    with database.write() as session:
        again = lifecycle.retry(session, row.id)
    assert (again.attempt, again.max_attempts) == (3, 6)  # A file of attempt 3 may lie there: the next one is newer.
    assert (again.error_message, again.completed_at, again.started_at) == (None, None, None)


def test_hand_back_is_claimable_immediately_and_keeps_attempts(database: Database, row_in: Row) -> None:
    row = row_in(PENDING, max_attempts=1)
    for attempt in (1, 2, 3):
        with database.write() as session:
            claimed = leases.claim(session, "w", ["sketch"], 30.0)
            assert claimed is not None
            assert claimed.attempt == attempt
            assert claimed.lease_token
            handed_back = return_job(session, row.id, claimed.lease_token, "shutting down")
            assert handed_back.is_pending
            assert handed_back.not_before is None
    with database.write() as session:
        claimed = leases.claim(session, "w", ["sketch"], 30.0)
        assert claimed is not None
        assert claimed.lease_token
        assert leases.fail(session, row.id, claimed.lease_token, "it broke", retryable=True).is_failed


@pytest.mark.parametrize(("retry_after_seconds", "expected"), [(0.0, 2.0), (1.5, 2.0), (60.5, 60.5)])
def test_retry_waits_as_long_as_the_error_asks_for(
    database: Database, row_in: Row, retry_after_seconds: float, expected: float
) -> None:
    row = row_in(PROCESSING, attempt=2, max_attempts=3)
    with database.write() as session:
        before = session.scalars(select(now())).one()
        failed = leases.fail(
            session, row.id, TOKEN, "disk full", retryable=True, retry_after_seconds=retry_after_seconds
        )
        [change] = get_recorded_changes(session)
        assert failed.not_before is not None
        waits_from = failed.not_before - timedelta(seconds=expected)
        assert before <= waits_from <= session.scalars(select(now())).one()
    assert change.due_seconds == expected


@pytest.mark.parametrize(("retry_after_seconds", "expected"), [(1.5, 2.0), (60.5, 60.5)])
def test_hand_back_waits_as_long_as_the_error_asks_for(
    database: Database, row_in: Row, retry_after_seconds: float, expected: float
) -> None:
    row = row_in(PROCESSING, attempt=2, max_attempts=2)
    with database.write() as session:
        before = session.scalars(select(now())).one()
        waiting = return_job(session, row.id, TOKEN, "no bucket", retry_after_seconds=retry_after_seconds)
        [change] = get_recorded_changes(session)
        assert waiting.not_before is not None
        waits_from = waiting.not_before - timedelta(seconds=expected)
        assert before <= waits_from <= session.scalars(select(now())).one()
    assert (waiting.is_pending, waiting.max_attempts, change.due_seconds) == (True, 3, expected)


def test_retry_delay_is_at_most_64_seconds(database: Database, row_in: Row) -> None:
    row = row_in(PROCESSING, attempt=90, max_attempts=100)
    with database.write() as session:
        failed = leases.fail(session, row.id, TOKEN, "it broke", retryable=True)
        due_seconds = queue.seconds_until_due(session)
    assert failed.is_pending
    assert due_seconds is not None
    assert 60 < due_seconds <= 64


def test_claim_requeues_or_fails_expired_leases(database: Database, row_in: Row) -> None:
    last = row_in(PROCESSING, lease_expires_at=now_plus(-0.001), attempt=3)
    first = row_in(PROCESSING, lease_expires_at=now_plus(-0.001), attempt=1)
    held = row_in(PROCESSING)
    unleased = row_in(PROCESSING, lease_expires_at=None, lease_token=None)
    with database.write() as session:
        claimed = leases.claim(session, "w2", ["sketch"], 30.0)
    assert claimed is not None
    assert (claimed.id, claimed.attempt, claimed.worker_id) == (first.id, 2, "w2")
    assert claimed.lease_token != TOKEN
    assert columns(database, last.id)["status"] is FAILED
    assert columns(database, last.id)["completed_at"] is not None
    assert "lease" in columns(database, last.id)["error_message"]
    assert columns(database, held.id)["status"] is PROCESSING
    assert columns(database, unleased.id)["status"] is PROCESSING
    with pytest.raises(Aborted), database.write() as session:
        complete(session, first)


def test_renew_after_cancel_and_lease_expiry_returns_none(database: Database, row_in: Row) -> None:
    row = row_in(PROCESSING, lease_expires_at=now_plus(-0.001))
    with database.write() as session:
        lifecycle.cancel(session, row.id)
        assert renew(session, row) is None


def test_concurrent_claims_have_one_winner(url: str, database: Database, row_in: Row) -> None:
    row = row_in(PENDING)
    start = threading.Barrier(8)

    def work(name: str) -> Generation | None:
        with Database(url, busy_timeout_seconds=60.0) as own:  # as another process would have
            with own.read() as session:
                session.connection()
            start.wait(60)
            with own.write() as session:
                return leases.claim(session, name, ["sketch"], 30.0)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(work, (f"w{n}" for n in range(8))))
    assert [claimed.id for claimed in won if claimed is not None] == [row.id]


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("worker_id", lambda s: leases.claim(s, "", ["sketch"], 30.0)),
        ("worker_id", lambda s: leases.claim(s, "w" * 201, ["sketch"], 30.0)),
        ("worker_id", lambda s: leases.claim(s, "w\0", ["sketch"], 30.0)),
        ("model_names", lambda s: leases.claim(s, "w", [], 30.0)),
        ("model_names", lambda s: leases.claim(s, "w", ["m"] * 1001, 30.0)),
        ("model_names[1]", lambda s: leases.claim(s, "w", ["m", " "], 30.0)),
        ("lease_seconds", lambda s: leases.claim(s, "w", ["m"], 0.5)),
        ("lease_seconds", lambda s: leases.claim(s, "w", ["m"], float("nan"))),
        ("lease_seconds", lambda s: leases.renew(s, UNKNOWN, TOKEN, 3601, None, 0.0)),
        ("progress", lambda s: leases.renew(s, UNKNOWN, TOKEN, 30, None, 1.01)),
        ("progress", lambda s: leases.renew(s, UNKNOWN, TOKEN, 30, None, float("nan"))),
        ("lease_token", lambda s: leases.renew(s, UNKNOWN, "", 30, None, 0.0)),
        ("export_address", lambda s: leases.renew(s, UNKNOWN, TOKEN, 30, None, 0.0, "unix:/tmp/a.sock")),
        ("export_address", lambda s: leases.renew(s, UNKNOWN, TOKEN, 30, None, 0.0, "dns:///export:50053")),
        ("export_address", lambda s: leases.renew(s, UNKNOWN, TOKEN, 30, None, 0.0, "export-1")),
        ("lease_token", lambda s: leases.renew(s, UNKNOWN, "\0", 30, None, 0.0)),
        ("error_message", lambda s: leases.fail(s, UNKNOWN, TOKEN, " ", retryable=True)),
        (
            "retry_after_seconds",
            lambda s: leases.fail(s, UNKNOWN, TOKEN, "x", retryable=True, retry_after_seconds=3601),
        ),
        ("file_path", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("", 1, 1, "", {}))),
        ("file_path", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("/etc/x", 1, 1, "", {}))),
        ("file_path", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a/../../x", 1, 1, "", {}))),
        ("file_path", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a\0", 1, 1, "", {}))),
        ("file_size_bytes", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a", 0, 1, "", {}))),
        ("file_size_bytes", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a", 2**62, 1, "", {}))),
        ("generation_time_seconds", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a", 1, 1e300, "", {}))),
        ("generation_time_seconds", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a", 1, -1, "", {}))),
        (
            "generation_time_seconds",
            lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a", 1, float("inf"), "", {})),
        ),
        ("model_version", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a", 1, 1, "v" * 201, {}))),
        ("metadata", lambda s: leases.complete(s, UNKNOWN, TOKEN, Completion("a", 1, 1, "", {"x": {1, 2}}))),
    ],
)
def test_invalid_worker_argument_names_its_field(database: Database, field: str, call: Any) -> None:
    with pytest.raises(InvalidArgument) as raised, database.write() as session:
        call(session)
    assert raised.value.field == field
