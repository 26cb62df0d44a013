"""The limits on what waits, and the estimate of when to try again."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text, update

from dgx_music.errors import ResourceExhausted
from service_runtime.access.caller import Scope
from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases, lifecycle, queue_limits
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.queue_limits import QueueLimits, estimate_wait
from storage_service.domain.row_insertion import Origin
from storage_service.domain.statistics import compute_statistics
from storage_service.domain.token_registry import NewToken, create_token, revoke_token

New = Callable[..., NewGeneration]
LIMITS = QueueLimits(max_pending=6, max_pending_per_client=4)


def queue_all(database: Database, client: str, requests: list[NewGeneration]) -> list[Generation]:
    with database.write() as session:
        return creation.create_all(session, requests, origin=Origin(client), limits=LIMITS)


def total(database: Database) -> int:
    with database.read() as session:
        return compute_statistics(session).overall.total_generations


def grant(database: Database, name: str, **limits: Any) -> str:
    with database.write() as session:
        return create_token(session, NewToken(name, Scope.GENERATE, **limits))[0].id


def test_client_may_queue_up_to_its_limit(database: Database, new: New) -> None:
    queue_all(database, "a", [new()] * 4)
    with pytest.raises(ResourceExhausted, match="client 'a' has 4 generations in the queue and may have 4") as raised:
        queue_all(database, "a", [new()])
    assert raised.value.reason == queue_limits.CLIENT_QUEUE_LIMIT_REACHED
    assert raised.value.retry_after_seconds == queue_limits.DEFAULT_RETRY_SECONDS
    assert "unknown" in raised.value.message
    queue_all(database, "b", [new()])
    with database.write() as session:
        claimed = leases.claim(session, "w", ["sketch"], 60.0)
    assert claimed is not None
    with pytest.raises(ResourceExhausted):
        queue_all(database, "a", [new()])  # What is being generated counts, too.
    with database.write() as session:
        leases.complete(session, claimed.id, claimed.lease_token or "", Completion("a.wav", 1, 1.0, "1", {}))
    queue_all(database, "a", [new()])


def test_batch_is_queued_whole_or_not_at_all(database: Database, new: New) -> None:
    queue_all(database, "a", [new()] * 2)
    with pytest.raises(ResourceExhausted):
        queue_all(database, "a", [new()] * 3)
    assert total(database) == 2
    with pytest.raises(ResourceExhausted, match="queue at most 4 at a time"):
        queue_all(database, "b", [new()] * 5)
    with database.read() as session:
        assert session.scalar(text("SELECT coalesce(sum(used_count), 0) FROM prompts")) == 2


def test_all_clients_share_one_limit(database: Database, new: New) -> None:
    queue_all(database, "a", [new()] * 4)
    queue_all(database, "b", [new()] * 2)
    with pytest.raises(ResourceExhausted, match="6 generations of all clients") as raised:
        queue_all(database, "c", [new()])
    assert raised.value.reason == queue_limits.QUEUE_LIMIT_REACHED


def test_repeated_request_is_never_refused(database: Database, new: New) -> None:
    requests = [new(request_id=str(uuid.UUID(int=number, version=4))) for number in range(4)]
    ids = [row.id for row in queue_all(database, "a", requests)]
    assert [row.id for row in queue_all(database, "a", requests)] == ids
    with database.write() as session:
        assert creation.create(session, requests[0], origin=Origin("a"), limits=LIMITS).id == ids[0]
    with pytest.raises(ResourceExhausted):
        queue_all(database, "a", [*requests, new()])


def test_retry_counts_against_the_limits(database: Database, new: New) -> None:
    failed = queue_all(database, "a", [new()])[0]
    with database.write() as session:
        claimed = leases.claim(session, "w", ["sketch"], 60.0)
        assert claimed is not None
        leases.fail(session, failed.id, claimed.lease_token or "", "no luck", retryable=False)
    queue_all(database, "a", [new()] * 4)
    with pytest.raises(ResourceExhausted), database.write() as session:
        lifecycle.retry(session, failed.id, limits=LIMITS)
    with database.write() as session:
        assert lifecycle.get(session, failed.id).is_failed
        waiting = leases.claim(session, "w", ["sketch"], 60.0)
        assert waiting is not None
        lifecycle.cancel(session, waiting.id)
        assert lifecycle.retry(session, failed.id, limits=LIMITS).is_pending


def test_token_lowers_the_limit_while_it_is_valid(database: Database, new: New) -> None:
    token_id = grant(database, "a", max_queued=1)
    grant(database, "b", max_queued=100)
    queue_all(database, "a", [new()])
    with pytest.raises(ResourceExhausted, match="may have 1"):
        queue_all(database, "a", [new()])
    with pytest.raises(ResourceExhausted, match="may have 4"):
        queue_all(database, "b", [new()] * 5)
    with database.write() as session:
        revoke_token(session, token_id)
    queue_all(database, "a", [new()])


def test_minutes_a_day_survive_deletion(database: Database, new: New) -> None:
    grant(database, "a", minutes_per_day=1.0)
    requests = [new(duration_seconds=25.0, request_id=str(uuid.UUID(int=number, version=4))) for number in range(2)]
    rows = queue_all(database, "a", requests)
    queue_all(database, "a", requests)  # Which creates nothing, and so uses nothing.
    with database.write() as session:
        for row in rows:
            lifecycle.remove(session, row.id)
    with pytest.raises(ResourceExhausted, match="minutes of audio today and may create 1 a day") as raised:
        queue_all(database, "a", [new(duration_seconds=25.0)])
    assert raised.value.reason == queue_limits.DAILY_LIMIT_REACHED
    assert 0 < (raised.value.retry_after_seconds or 0) <= 86_400
    queue_all(database, "a", [new(duration_seconds=10.0)])
    with database.write() as session:
        session.execute(text("UPDATE client_usage SET day = '2020-01-01'"))
    queue_all(database, "a", [new(duration_seconds=25.0)])


def test_limits_are_exact_with_concurrent_calls(database: Database, new: New) -> None:
    grant(database, "a", minutes_per_day=3 * 4 / 60)

    def attempt(client: str) -> bool:
        try:
            queue_all(database, client, [new(duration_seconds=4.0)])
        except ResourceExhausted:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(attempt, ["a"] * 12)) == 3
        assert 3 <= sum(pool.map(attempt, ["b"] * 12)) <= 4
    with database.read() as session:
        assert session.scalar(text("SELECT audio_seconds FROM client_usage")) == 12.0
        ranks = session.execute(text("SELECT count(DISTINCT ranked_at), count(*) FROM generations WHERE client = 'a'"))
        assert tuple(ranks.one()) == (3, 3)


def test_wait_is_estimated_from_what_was_completed_lately(database: Database, new: New) -> None:
    queue_all(database, "a", [new(duration_seconds=30.0)] * 4)
    with database.write() as session:
        for _ in range(2):
            claimed = leases.claim(session, "w", ["sketch"], 60.0)
            assert claimed is not None
            leases.complete(session, claimed.id, claimed.lease_token or "", Completion("a.wav", 1, 1.0, "1", {}))
            begun = update(Generation).where(Generation.id == claimed.id).values(started_at=now_plus(-20.0))
            session.execute(begun)
        throughput = queue_limits.measure_throughput(session)
    assert throughput == pytest.approx(3.0, rel=0.1)  # 60 s of audio in 20 s.
    queue_all(database, "a", [new(duration_seconds=30.0)] * 2)
    with pytest.raises(ResourceExhausted, match=r"try again in about 1[01] s; lately, [23]\.\d s of audio") as raised:
        queue_all(database, "a", [new()])
    assert raised.value.retry_after_seconds == pytest.approx(10.0, rel=0.2)
    with database.write() as session:
        session.execute(update(Generation).values(completed_at=now_plus(-queue_limits.MEASURED_SECONDS - 1.0)))
        assert queue_limits.measure_throughput(session) is None


@pytest.mark.parametrize(
    ("throughput", "excess", "queued", "audio_seconds", "expected"),
    [
        (None, 1, 10, 300.0, queue_limits.DEFAULT_RETRY_SECONDS),
        (2.0, 1, 10, 300.0, 15.0),
        (2.0, 2, 10, 300.0, 30.0),
        (1000.0, 1, 10, 300.0, 1.0),
        (0.001, 1, 10, 300.0, 600.0),
        (2.0, 1, 0, 0.0, queue_limits.DEFAULT_RETRY_SECONDS),
    ],
)
def test_estimate(throughput: float | None, excess: int, queued: int, audio_seconds: float, expected: float) -> None:
    assert estimate_wait(throughput, excess, queued, audio_seconds) == expected
