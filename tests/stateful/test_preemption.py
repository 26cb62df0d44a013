"""Workers that hand generations back for more important ones, in virtual time, on storage itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage_service.db.database import Database
from storage_service.domain import creation, leases
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.row_insertion import Origin
from storage_service.domain.sharing import job_checkpoints
from storage_service.domain.sharing.hand_back import hand_back
from storage_service.domain.sharing.preemption import MIN_RUN_SECONDS, Preemption
from storage_service.states import GenerationStage
from tests.support.clocked_database import START, ClockedSqlite

MODELS = ["small", "large"]
RESUMABLE = "small"
AFTER_SECONDS, TICK_SECONDS = 10.0, 5.0
RESUME_SECONDS = 5.0
"""What it costs to go on from a checkpoint."""


@dataclass
class Arrival:
    at_tick: int
    model_name: str
    priority: int
    seconds: float


@dataclass
class Running:
    id: str
    token: str
    model_name: str
    priority: int
    since: float
    remaining: float
    is_asked: str = ""


@dataclass
class Cluster:
    """A few workers on one database, whose clock moves in ticks. Each generates at real time."""

    stored: ClockedSqlite
    places: int
    now: float = 0.0
    running: list[Running] = field(default_factory=list)
    remaining: dict[str, float] = field(default_factory=dict)
    priorities: dict[str, int] = field(default_factory=dict)
    preemptions: list[tuple[str, str, float]] = field(default_factory=list)
    """(Preempted, for whom, after how many seconds of its run)."""
    claims: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._preemption = Preemption(AFTER_SECONDS, clock=lambda: self.now)
        self.stored.set_clock(START)

    def create(self, arrival: Arrival) -> None:
        new = NewGeneration("a", arrival.model_name, arrival.seconds, 32000, 2, priority=arrival.priority)
        with self.stored.database.write() as session:
            row = creation.create(session, new, origin=Origin(f"client-{arrival.priority}"))
            self.remaining[row.id], self.priorities[row.id] = arrival.seconds, arrival.priority

    def claim(self) -> None:
        while len(self.running) < self.places:
            with self.stored.database.write() as session:
                row = leases.claim(session, "w", MODELS, 60.0)
                if row is None:
                    return
                is_resumed = row.attempt > 1 and job_checkpoints.read(session, row.id) != b""
                if row.attempt > 1 and not is_resumed:
                    self.remaining[row.id] = row.duration_seconds
                cost = RESUME_SECONDS if is_resumed else 0.0
                remaining = self.remaining[row.id] + cost
                run = Running(row.id, row.lease_token or "", row.model_name, row.priority, self.now, remaining)
            self.running.append(run)
            self.claims.append(run.id)

    def tick(self) -> None:
        self.now += TICK_SECONDS
        self.stored.set_clock(START + timedelta(seconds=self.now))
        for run in list(self.running):
            run.remaining -= TICK_SECONDS
            with self.stored.database.write() as session:
                if run.remaining <= 0:
                    leases.complete(session, run.id, run.token, Completion("a.wav", 1, 1.0, "1", {}))
                    self.done.append(run.id)
                    self.running.remove(run)
                    assert job_checkpoints.read(session, run.id) == b""
                    continue
                row = leases.renew(session, run.id, run.token, 60.0, GenerationStage.GENERATING, 0.5)
                assert row is not None
                preemptor = self._preemption.find(session, row, MODELS)
                if not preemptor:
                    continue
                self.preemptions.append((run.id, preemptor, self.now - run.since))
                checkpoint = b"codes" if run.model_name == RESUMABLE else b""
                hand_back(session, run.id, run.token, "preempted", checkpoint=checkpoint, preempted_by=preemptor)
            self.remaining[run.id] = run.remaining
            self.running.remove(run)
            self.claim()
            assert self.claims[-1] == preemptor, "the place is not for whom it was made"
        self.claim()


arrivals = st.builds(
    Arrival,
    at_tick=st.integers(0, 40),
    model_name=st.sampled_from(MODELS),
    priority=st.integers(-2, 2),
    seconds=st.sampled_from([5.0, 40.0, 150.0]),
)


@pytest.fixture
def stored() -> Iterator[ClockedSqlite]:
    with Database("sqlite://") as database:
        yield ClockedSqlite(database)


@pytest.mark.parametrize(
    "plan",
    [
        [Arrival(0, RESUMABLE, -2, 100.0), *(Arrival(tick, "large", 2, 5.0) for tick in range(1, 24, 3))],
        [Arrival(0, "large", 0, 100.0), *(Arrival(tick, "large", 1, 40.0) for tick in (1, 2, 20))],
        # The last of these come after the first in the queue, by their ranks.
        [Arrival(0, RESUMABLE, 0, 100.0), *(Arrival(1, RESUMABLE, 1, 150.0) for _ in range(7))],
    ],
    ids=["a stream of short ones", "of a model without checkpoints", "of an earlier rank"],
)
def test_longest_and_least_important_gets_on(stored: ClockedSqlite, plan: list[Arrival]) -> None:
    assert play(stored, plan, places=1)


@pytest.mark.slow
@given(plan=st.lists(arrivals, min_size=2, max_size=14), places=st.integers(1, 3))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_everybody_gets_on(stored: ClockedSqlite, plan: list[Arrival], places: int) -> None:
    play(stored, plan, places)


def play(stored: ClockedSqlite, plan: list[Arrival], places: int) -> list[tuple[str, str, float]]:
    """Plays arrivals until all are done, and checks what was handed back for whom, which it returns."""
    stored.clear()
    cluster = Cluster(stored, places)
    due = sorted(plan, key=lambda arrival: arrival.at_tick)
    work = sum(arrival.seconds + MIN_RUN_SECONDS for arrival in plan)
    for tick in range(41 + round(3 * work / TICK_SECONDS)):
        if tick > 40 and len(cluster.done) == len(plan):
            break
        for arrival in [arrival for arrival in due if arrival.at_tick == tick]:
            cluster.create(arrival)
        cluster.tick()
    assert len(cluster.done) == len(plan), "a generation never completes"

    by_preempted: dict[str, list[float]] = {}
    for preempted, preemptor, ran_seconds in cluster.preemptions:
        assert cluster.priorities[preempted] < cluster.priorities[preemptor]
        by_preempted.setdefault(preempted, []).append(ran_seconds)
    for runs in by_preempted.values():
        assert all(seconds >= MIN_RUN_SECONDS for seconds in runs[1:]), "it was asked again before it got on"
    preemptors = [preemptor for _, preemptor, _ in cluster.preemptions]
    assert len(preemptors) == len(set(preemptors)), "two made room for one"
    return cluster.preemptions
