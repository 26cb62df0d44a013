"""Batches, which create all of their generations or none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from dgx_music.errors import InvalidArgument, Unavailable
from dgx_music.limits import MAX_BATCH_SIZE
from storage_service.db.database import Database
from storage_service.db.error_translation import RETRY_AFTER_SECONDS
from storage_service.db.models import Generation, Prompt
from storage_service.domain import creation, prompts
from storage_service.domain.creation import NewGeneration
from storage_service.events.changes import get_recorded_changes

New = Callable[..., NewGeneration]
REQUEST_ID = "11111111-2222-4333-8444-55555555aaaa"


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Generation)) or 0


def test_batch_keeps_order_and_counts_prompts(database: Database, new: New) -> None:
    with database.write() as session:
        texts = [f"p{n % 3}" for n in range(MAX_BATCH_SIZE)]
        rows = creation.create_all(session, [new(prompt=text, max_attempts=7) for text in texts], max_attempts=5)
        assert len(get_recorded_changes(session)) == MAX_BATCH_SIZE
    assert [row.prompt for row in rows] == texts
    assert {row.max_attempts for row in rows} == {7}
    moments = [row.created_at for row in rows]
    assert moments == sorted(set(moments))
    with database.read() as session:
        used = {row.text: row.used_count for row in session.scalars(select(Prompt))}
    assert used == {"p0": 34, "p1": 33, "p2": 33}


@pytest.mark.parametrize(
    ("at", "change", "field"),
    [
        (0, {"prompt": ""}, "requests[0].prompt"),
        (2, {"priority": 11}, "requests[2].priority"),
        (1, {"max_attempts": 21}, "requests[1].max_attempts"),
        (2, {"request_id": REQUEST_ID}, "requests[2].request_id"),
    ],
)
def test_batch_with_invalid_request_creates_nothing(
    database: Database, new: New, at: int, change: dict[str, object], field: str
) -> None:
    with database.write() as session:
        creation.create(session, new(request_id=REQUEST_ID, seed=1))
    news = [new(prompt="x") for _ in range(3)]
    news[at] = new(**change)
    with pytest.raises(InvalidArgument) as raised, database.write() as session:
        creation.create_all(session, news)
    assert raised.value.field == field
    assert count(database) == 1
    with database.read() as session:
        assert prompts.find(session, "x") is None


def test_batch_size_out_of_range_is_rejected(database: Database, new: New) -> None:
    for number in (0, MAX_BATCH_SIZE + 1):
        with pytest.raises(InvalidArgument) as raised, database.write() as session:
            creation.create_all(session, [new()] * number)
        assert raised.value.field == "requests"


def test_repeated_batch_creates_only_missing_requests(database: Database, new: New) -> None:
    ids = [f"{REQUEST_ID[:-1]}{n}" for n in range(3)]
    with database.write() as session:
        first = creation.create_all(session, [new(request_id=one) for one in ids[:2]])
    with database.write() as session:
        again = creation.create_all(session, [new(request_id=one) for one in (*ids, ids[0])])
    assert [row.id for row in again[:2]] == [row.id for row in first]
    assert again[3].id == first[0].id
    assert count(database) == 3
    with database.read() as session:
        counted = prompts.find(session, "a calm piano")
        assert counted is not None
        assert counted.used_count == 3


def test_concurrent_batches_with_shared_prompts_do_not_deadlock(database: Database, new: New) -> None:
    texts = [f"p{n}" for n in range(8)]

    def work(order: list[str]) -> None:
        for _ in range(5):
            with database.write() as session:
                creation.create_all(session, [new(prompt=text) for text in order])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, (texts, texts[::-1], texts)))
    assert count(database) == 3 * 5 * len(texts)


def test_deadlocked_batches_are_retryable(database: Database, new: New) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite has one writer at a time")
    both_have_one = threading.Barrier(2)
    refused = []

    def work(order: list[str]) -> dict[str, str]:
        while True:
            try:
                with database.write() as session:
                    ids = {}
                    for request_id in order:
                        if ids and not refused:
                            both_have_one.wait(60)
                        ids[request_id] = creation.create(session, requests[request_id]).id
                return ids
            except Unavailable as error:
                refused.append(error.retry_after_seconds)

    ids = [REQUEST_ID, REQUEST_ID.replace("1", "2")]
    requests = {request_id: new(request_id=request_id, seed=1, prompt=request_id) for request_id in ids}
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(work, [ids, ids[::-1]])
    assert one == other
    assert set(refused) == {RETRY_AFTER_SECONDS}  # Mostly once, but who retries may be the quicker one again.
    assert count(database) == 2
