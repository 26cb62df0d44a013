"""Clients take turns: ranks by start-time fair queueing, as a pure function and in the database."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import update

from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases, lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.queue import Place, QueueState, compute_rank
from storage_service.domain.row_insertion import Origin

New = Callable[..., NewGeneration]
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def queue_batch(database: Database, client: str, requests: list[NewGeneration]) -> list[str]:
    with database.write() as session:
        return [row.id for row in creation.create_all(session, requests, origin=Origin(client))]


def claim(database: Database, *models: str) -> Generation | None:
    with database.write() as session:
        return leases.claim(session, "w", models or ["sketch"], 600.0)


def claim_and_complete(database: Database, *models: str) -> Generation | None:
    claimed = claim(database, *models)
    if claimed is not None:
        with database.write() as session:
            leases.complete(session, claimed.id, claimed.lease_token or "", Completion("a.wav", 1, 1.0, "1", {}))
    return claimed


def drain(database: Database) -> list[str]:
    """The clients in the order in which all of their generations are claimed."""
    return [row.client for row in iter(lambda: claim_and_complete(database), None)]


def test_first_of_a_client_comes_before_the_thousands_of_another(database: Database, new: New) -> None:
    for _ in range(20):
        queue_batch(database, "a", [new(duration_seconds=30.0)] * 100)
    running = claim(database)
    assert running is not None
    assert running.client == "a"
    [first] = queue_batch(database, "b", [new(duration_seconds=60.0)])
    following = claim(database)
    assert following is not None
    assert following.id == first


def test_three_clients_share(database: Database, new: New) -> None:
    for client, count in (("a", 20), ("b", 10), ("c", 10)):
        queue_batch(database, client, [new()] * count)
    claimed = drain(database)
    for start in range(0, 30, 3):
        assert sorted(claimed[start : start + 3]) == ["a", "b", "c"]
    assert claimed[30:] == ["a"] * 10


def test_clients_share_audio_and_not_turns(database: Database, new: New) -> None:
    queue_batch(database, "long", [new(duration_seconds=40.0)] * 5)
    queue_batch(database, "short", [new(duration_seconds=10.0)] * 20)
    claimed = Counter(drain(database)[:15])
    assert 2 <= claimed["long"] <= 4


def test_client_that_was_away_has_saved_up_nothing(database: Database, new: New) -> None:
    queue_batch(database, "a", [new()] * 40)
    for _ in range(20):
        claim_and_complete(database)
    claim(database)
    queue_batch(database, "b", [new()] * 20)
    claimed = Counter(claimed.client for _ in range(10) if (claimed := claim_and_complete(database)))
    assert 4 <= claimed["a"] <= 6


def test_priority_orders_the_generations_of_a_client(database: Database, new: New) -> None:
    low = queue_batch(database, "a", [new(duration_seconds=600.0)] * 20)
    high = queue_batch(database, "a", [new(priority=5), new(priority=5), new(priority=7)])
    order = [row.id for row in iter(lambda: claim_and_complete(database), None)]
    assert order == [high[2], high[0], high[1], *low]


def test_models_share_the_order(database: Database, new: New) -> None:
    queue_batch(database, "a", [new(model_name=name) for name in ("m1", "m2", "m1", "m2")])
    models = [row.model_name for row in iter(lambda: claim_and_complete(database, "m1", "m2"), None)]
    assert models == ["m1", "m2", "m1", "m2"]


def test_rows_from_before_clients_had_names_keep_their_place(database: Database, new: New) -> None:
    with database.write() as session:
        old = [creation.create(session, new(prompt=f"{number}")).id for number in range(3)]
        for number, generation_id in enumerate(old):
            rank = now_plus(number - 3600.0)
            session.execute(update(Generation).where(Generation.id == generation_id).values(ranked_at=rank))
    queue_batch(database, "a", [new(), new()])
    clients = drain(database)
    assert clients[0] == ""
    assert Counter(clients) == {"": 3, "a": 2}


def test_retried_generation_enters_the_queue_anew(database: Database, new: New) -> None:
    [failed] = queue_batch(database, "a", [new()])
    claimed = claim(database)
    assert claimed is not None
    with database.write() as session:
        row = leases.fail(session, failed, claimed.lease_token or "", "no luck", retryable=False)
        assert row.ranked_at is None
    waiting = queue_batch(database, "b", [new()] * 2)
    with database.write() as session:
        assert lifecycle.retry(session, failed).ranked_at is not None
    order = [row.id for row in iter(lambda: claim_and_complete(database), None)]
    assert order == [waiting[0], failed, waiting[1]]


def test_batch_gets_the_ranks_of_single_calls(database: Database, new: New) -> None:
    requests = [new(model_name=model, priority=priority) for model in ("m1", "m2") for priority in (0, 3, 0)]
    batch = queue_batch(database, "a", requests)
    with database.write() as session:
        ranks = [session.get_one(Generation, key).ranked_at or NOW for key in batch]
        for key in batch:
            lifecycle.cancel(session, key)
    singles = [queue_batch(database, "a", [request])[0] for request in requests]
    with database.read() as session:
        again = [session.get_one(Generation, key).ranked_at or NOW for key in singles]
    assert [rank - ranks[0] for rank in ranks] == pytest.approx(
        [rank - again[0] for rank in again], abs=timedelta(milliseconds=1)
    )


@example(others=[(0, 10, 30.0)], priority=-10, weight=1.0)
@example(others=[(1, 10, 30.0), (0, 10, 5.0)], priority=-10, weight=2.0)
@given(
    others=st.lists(
        st.tuples(st.integers(0, 5), st.integers(-10, 10), st.sampled_from([5.0, 30.0, 600.0])), min_size=1, max_size=8
    ),
    priority=st.integers(-10, 10),
    weight=st.sampled_from([0.5, 1.0]),
)
def test_nobody_starves(others: list[tuple[int, int, float]], priority: int, weight: float) -> None:
    """One generation waits while others, again and again, queue theirs at each claim, whatever their priorities.

    Before it, each other client gets 12,000 s of audio times its weight at most, besides a generation of each.
    """
    numbers = itertools.count()
    heap: list[tuple[datetime, int, str, Place]] = []
    running: Place | None = None

    def enter(client: str, level: int, seconds: float) -> int:
        own = [place for _, _, owner, place in heap if owner == client and place.priority >= level]
        head = min(heap)[3] if heap else None
        state = QueueState(NOW, running, head, max(own, key=lambda place: place.rank, default=None))
        rank, number = compute_rank(state, level), next(numbers)
        heapq.heappush(heap, (rank, number, client, Place(rank, level, seconds, weight)))
        return number

    for client, level, seconds in others:
        enter(f"client-{client}", level, seconds)
    running = heapq.heappop(heap)[3]
    waiting = enter("patient", priority, 30.0)
    # What enters while one runs starts 2.5 s after it or more, and the priorities span 12,000 s.
    for claims in range(round(len(others) * 4_800 * max(1.0, weight)) + 100):
        _, number, _, running = heapq.heappop(heap)
        if number == waiting:
            return
        client, level, seconds = others[claims % len(others)]
        enter(f"{client}-{claims}" if client == 0 else f"client-{client}", level, seconds)
    raise AssertionError("it starved")
