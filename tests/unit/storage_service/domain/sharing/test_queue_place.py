"""Where a waiting generation is in the queue."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases
from storage_service.domain.creation import NewGeneration
from storage_service.domain.sharing import queue_place
from storage_service.domain.sharing.queue_place import QueuePlace, find_place
from storage_service.states import GenerationStatus

MODELS = ["sketch", "other"]


def test_places_are_the_order_of_the_claims(database: Database, new: Callable[..., NewGeneration]) -> None:
    waiting = [new(model_name="sketch"), new(model_name="other"), new(model_name="sketch", priority=1), new()]
    with database.write() as session:
        rows = creation.create_all(session, waiting)
        places = {row.id: find_place(session, row) for row in rows}
    assert sorted(place.position for place in places.values() if place) == [1, 2, 3, 4]
    for expected in (1, 2, 3, 4):
        with database.write() as session:
            claimed = leases.claim(session, "w", MODELS, 60.0)
        assert claimed is not None
        assert places[claimed.id] == QueuePlace(expected, 0.0), "nothing was completed, so the wait is unknown"


def test_only_what_waits_has_a_place(database: Database, row_in: Callable[..., Generation]) -> None:
    with database.read() as session:
        for status in set(GenerationStatus) - {GenerationStatus.PENDING}:
            assert find_place(session, row_in(status)) is None


def test_wait_follows_from_the_speed_of_late(database: Database, row_in: Callable[..., Generation]) -> None:
    """20 s of audio were made in 10 s: what runs has 6 s to come, and what waits before it is 10 s long."""
    row_in(GenerationStatus.COMPLETED, duration_seconds=20.0, started_at=now_plus(-10.0), completed_at=now_plus(-0.1))
    running = {"duration_seconds": 8.0, "progress": 0.25, "started_at": now_plus(-9.0)}
    row_in(GenerationStatus.PROCESSING, **running, ranked_at=now_plus(-9.0))
    row_in(GenerationStatus.PENDING, duration_seconds=10.0, ranked_at=now_plus(-8.0))
    last = row_in(GenerationStatus.PENDING, duration_seconds=30.0, ranked_at=now_plus(-7.0))
    with database.read() as session:
        place = find_place(session, last)
    assert place is not None
    assert place.position == 2
    assert place.wait_seconds == pytest.approx(8.0, abs=3.0)


def test_wait_follows_from_what_runs_while_nothing_is_completed(
    database: Database, row_in: Callable[..., Generation]
) -> None:
    """30 s of 120 were made in 10 s, so the other 90 take 30."""
    running = {"duration_seconds": 120.0, "progress": 0.25, "started_at": now_plus(-10.0)}
    row_in(GenerationStatus.PROCESSING, **running, ranked_at=now_plus(-9.0))
    row_in(GenerationStatus.COMPLETED, duration_seconds=1.0, started_at=now_plus(-60.0), completed_at=now_plus(-59.0))
    with database.read() as session:
        place = find_place(session, row_in(GenerationStatus.PENDING))
    assert place is not None
    assert place.position == 1
    assert place.wait_seconds == pytest.approx(30.0, abs=8.0)


def test_position_is_read_from_a_bounded_part_of_the_queue(
    database: Database, new: Callable[..., NewGeneration], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_place, "LAST_POSITION", 3)
    with database.write() as session:
        rows = creation.create_all(session, [new() for _ in range(6)])
        positions = [place.position for row in rows if (place := find_place(session, row))]
    assert positions == [1, 2, 3, 3, 3, 3]
