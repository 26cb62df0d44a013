"""What Prometheus sees of the queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases
from storage_service.domain.creation import NewGeneration
from storage_service.domain.queue_metrics import CREATED, LEASE_EXPIRIES, read_queue_metrics
from storage_service.states import GenerationStatus
from tests.support.shown_metrics import shown

Row = Callable[..., Generation]


def read(database: Database) -> dict[tuple[str, str], Any]:
    """(name without the prefix, state) → value."""
    with database.read() as session:
        readings = list(read_queue_metrics(session))
    prefix = "dgx_music_storage_"
    return {(one.name.removeprefix(prefix), one.labels.get("state", "")): one.value for one in readings}


def test_an_empty_queue_shows_zeros(database: Database) -> None:
    readings = read(database)
    assert {state for name, state in readings if name == "generations"} == {state.value for state in GenerationStatus}
    assert set(readings.values()) == {0.0}


def test_queue_shows_states_backlog_and_age(database: Database, row_in: Row) -> None:
    row_in(GenerationStatus.PENDING, created_at=now_plus(-90.0), client="a", duration_seconds=10.0)
    row_in(GenerationStatus.PENDING, client="a", duration_seconds=2.5)
    row_in(GenerationStatus.PROCESSING, client="b", created_at=now_plus(-900.0), duration_seconds=4.0)
    row_in(GenerationStatus.COMPLETED, client="c", ranked_at=None)
    readings = read(database)
    assert {state: count for (name, state), count in readings.items() if name == "generations"} == {
        "pending": 2.0,
        "processing": 1.0,
        "completed": 1.0,
        "failed": 0.0,
        "cancelled": 0.0,
    }
    assert readings["backlog_audio_seconds", "pending"] == 12.5
    assert readings["backlog_audio_seconds", "processing"] == 4.0
    assert readings["oldest_pending_seconds", ""] == pytest.approx(90.0, abs=30.0)
    assert readings["queued_clients", ""] == 2.0


def test_created_and_expired_are_counted_once(database: Database, row_in: Row) -> None:
    new = NewGeneration("a", "sketch", 1.0, 32000, 2, request_id="0d5c2a52-3a9b-4d0e-8f0e-0a3f4f5f6a7b")
    with shown(CREATED) as created:
        for _ in range(2):
            with database.write() as session:
                creation.create(session, new)
    assert created == {(): [1.0]}
    row_in(GenerationStatus.PROCESSING, lease_expires_at=now_plus(-0.001))
    with shown(LEASE_EXPIRIES) as expired:
        for _ in range(2):
            with database.write() as session:
                leases.expire_leases(session)
    assert expired == {(): [1.0]}
