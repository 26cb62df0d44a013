"""Weights of clients: shares of what is generated, in virtual time and in the database."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from service_runtime.access.caller import Scope
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation, leases, token_registry
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.queue import Place, QueueState, compute_rank
from storage_service.domain.row_insertion import Origin
from storage_service.domain.token_registry import NewToken

New = Callable[..., NewGeneration]
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Queue:
    """Ranks by `compute_rank`, and any number of workers, each of which generates at real time."""

    def __init__(self, workers: int) -> None:
        self._numbers = itertools.count()
        self._waiting: list[tuple[datetime, int, str, Place]] = []
        self._running: list[tuple[float, int, Place]] = []
        self._workers = workers
        self._last: dict[str, Place] = {}
        self.now = 0.0

    def enter(self, client: str, weight: float, seconds: float, priority: int = 0) -> None:
        head = min(self._waiting)[3] if self._waiting else None
        running = max((place for _, _, place in self._running), key=lambda place: place.rank, default=None)
        rank = compute_rank(QueueState(NOW, running, head, self._last.get(client)), priority)
        place = self._last[client] = Place(rank, priority, seconds, weight)
        heapq.heappush(self._waiting, (rank, next(self._numbers), client, place))

    def served(self) -> Iterator[tuple[str, float]]:
        """Yields each client that is served, and the seconds that it gets, at `now`."""
        while self._waiting:
            if len(self._running) == self._workers:
                self.now, *_ = heapq.heappop(self._running)
            _, number, client, place = heapq.heappop(self._waiting)
            heapq.heappush(self._running, (self.now + place.duration_seconds, number, place))
            yield client, place.duration_seconds


@given(
    weights=st.lists(st.sampled_from([0.1, 0.5, 1.0, 3.0, 100.0]), min_size=2, max_size=5),
    lengths=st.lists(st.sampled_from([5.0, 30.0, 180.0]), min_size=5, max_size=5),
    workers=st.integers(1, 12),
    rounds=st.integers(20, 100),
)
@settings(max_examples=25)
def test_shares_follow_the_weights_whatever_is_queued(
    weights: list[float], lengths: list[float], workers: int, rounds: int
) -> None:
    """Each client queues its next generation as soon as one is served. No client gets ahead of another by more than
    a generation of each, in seconds by weight (Goyal, Vin, Cheng 1996, theorem 1), and half of one for entering first.
    """
    queue, given_seconds = Queue(workers), Counter[str]()
    clients = {f"client-{index}": (weight, lengths[index]) for index, weight in enumerate(weights)}
    for name, (weight, seconds) in clients.items():
        for _ in range(2):
            queue.enter(name, weight, seconds)
    for client, seconds in itertools.islice(queue.served(), rounds):
        given_seconds[client] += seconds  # type: ignore[assignment]
        queue.enter(client, *clients[client])
        service = {name: given_seconds[name] / weight for name, (weight, _) in clients.items()}
        for (name, own), (other, theirs) in itertools.combinations(service.items(), 2):
            slack = sum(1.5 * clients[each][1] / clients[each][0] for each in (name, other))
            assert abs(own - theirs) <= slack + 0.001


def test_tokens_give_clients_their_shares(database: Database, new: New) -> None:
    with database.write() as session:
        token_registry.create_token(session, NewToken("studio", Scope.GENERATE, weight=3.0))
        rows = [
            row
            for client in ("studio", "laptop")
            for row in creation.create_all(session, [new()] * 40, origin=Origin(client))
        ]
        assert {row.weight for row in rows} == {3.0, None}
    with database.write() as session:
        # Made one by one, they get the same ranks as in a batch.
        single = creation.create(session, new(), origin=Origin("studio"))
        assert single.weight == 3.0
    claimed: Counter[str] = Counter()
    for _ in range(40):
        with database.write() as session:
            row = leases.claim(session, "w", ["sketch"], 600.0)
            assert isinstance(row, Generation)
            claimed[row.client] += 1
            leases.complete(session, row.id, row.lease_token or "", Completion("a.wav", 1, 1.0, "1", {}))
    assert 29 <= claimed["studio"] <= 31


def test_revoked_token_has_no_weight_any_more(database: Database, new: New) -> None:
    with database.write() as session:
        token, _ = token_registry.create_token(session, NewToken("studio", Scope.GENERATE, weight=3.0))
        token_registry.revoke_token(session, token.id)
        assert creation.create(session, new(), origin=Origin("studio")).weight is None
