"""The order of claims: priorities, ranks and several models."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from dgx_music.errors import InvalidArgument
from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases, queue
from storage_service.domain.creation import NewGeneration

New = Callable[..., NewGeneration]
Row = Callable[..., Generation]


def claims(database: Database, *models: str) -> list[str]:
    """Claims everything and returns the prompts in the order of the claims."""
    claimed = []
    while True:
        with database.write() as session:
            row = leases.claim(session, "w", models or ["sketch"], 30.0)
        if row is None:
            return claimed
        claimed.append(row.prompt)


def test_claims_follow_priority_then_age(database: Database, new: New) -> None:
    with database.write() as session:
        for priority in (0, 10, -10, 3, 10, 0):
            count = creation.create(session, new(prompt=f"{priority}", priority=priority))
            assert count.priority == priority
    assert claims(database) == ["10", "10", "3", "0", "0", "-10"]


def test_old_generation_is_not_starved_by_priority(database: Database, new: New) -> None:
    step = queue.SECONDS_PER_PRIORITY_LEVEL
    with database.write() as session:
        for prompt, age_seconds, priority in (("young", 0.0, 1), ("old", step + 1.0, 0), ("middle", step - 1.0, 0)):
            row = creation.create(session, new(prompt=prompt, priority=priority))
            rank = now_plus(-age_seconds - step * priority)
            session.execute(update(Generation).where(Generation.id == row.id).values(ranked_at=rank))
    assert claims(database) == ["old", "young", "middle"]


def test_claim_of_several_models_takes_smallest_rank(database: Database, new: New) -> None:
    with database.write() as session:
        for prompt, model, priority in (("1", "a", 0), ("2", "b", 0), ("3", "a", 1), ("4", "c", 9), ("5", "b", 0)):
            creation.create(session, new(prompt=prompt, model_name=model, priority=priority))
    assert claims(database, "a", "b", "none") == ["3", "1", "2", "5"]
    assert claims(database, "a", "b") == []
    with database.read() as session:
        assert queue.list_models_with_pending(session) == ["c"]
    assert claims(database, "c") == ["4"]


def test_claim_skips_generation_in_retry_delay(database: Database, new: New) -> None:
    with database.write() as session:
        first = creation.create(session, new(prompt="1"))
        creation.create(session, new(prompt="2"))
        session.execute(update(Generation).where(Generation.id == first.id).values(not_before=now_plus(60.0)))
    assert claims(database) == ["2"]
    assert claims(database, "sketch", "other") == []


@pytest.mark.parametrize("priority", [-11, 11])
def test_priority_out_of_range_is_rejected(database: Database, new: New, priority: int) -> None:
    with pytest.raises(InvalidArgument) as raised, database.write() as session:
        creation.create(session, new(priority=priority))
    assert raised.value.field == "priority"


def test_claim_skips_locked_row(url: str, new: New, open_database: Callable[..., Database]) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite has one writer")
    database = open_database(url)
    with database.write() as session:
        for prompt in ("1", "2"):
            creation.create(session, new(prompt=prompt))
    with database.write() as session:
        assert leases.claim(session, "w", ["sketch"], 30.0) is not None
        assert claims(database) == ["2"]


def test_manually_added_row_is_claimed_in_order(database: Database, new: New) -> None:
    with database.write() as session:
        creation.create(session, new(prompt="1"))
        session.add(Generation(prompt="2", model_name="sketch", duration_seconds=1.0, sample_rate=32000, channels=1))
    with database.write() as session:
        creation.create(session, new(prompt="3"))
    assert claims(database) == ["1", "2", "3"]
