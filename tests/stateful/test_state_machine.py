"""Random sequences of calls by creators, workers and administrators, with expired leases, stale tokens and processes
that die halfway. After every step, the whole database must equal the model."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from storage_service.db.database import Database
from storage_service.maintenance.integrity import find_violations
from tests.support.clocked_database import START, ClockedDatabase, ClockedSqlite, clocked_postgres
from tests.support.lifecycle_calls import compare, make
from tests.support.lifecycle_model import REJECTIONS, SOURCE_STATES, STATES, Answer, Call, Model, Request

T = TypeVar("T")

MODELS = "small", "large"
REQUEST_IDS = [str(uuid.UUID(int=number, version=4)) for number in range(2)]
MICROSECOND = timedelta(microseconds=1)

requests = st.builds(
    Request,
    prompt=st.sampled_from(["a calm piano", "drums"]),
    model_name=st.sampled_from(MODELS),
    duration_seconds=st.sampled_from([1.5, 30.0]),
    priority=st.sampled_from([0, 1, -1, 10]),
    max_attempts=st.sampled_from([None, 2, 1]),
    request_id=st.sampled_from([None, None, None, *REQUEST_IDS]),
)
refused_requests = st.just(Request(prompt=""))
lease_seconds = st.sampled_from([30.0, 1.0, 600.0])
picks = st.integers(0, 7)
"""Up to 5: one of those that the call is meant for, if there are any. Otherwise: one of all that ever existed."""


class Storage(RuleBasedStateMachine):
    """One example: a sequence of calls, each performed on storage and on the model."""

    def __init__(self, stored: ClockedDatabase) -> None:
        super().__init__()
        self.stored = stored
        self.model = Model(START)
        self.keys: list[str] = []
        self.leases: list[tuple[str, str]] = []
        self.dies_next = False
        stored.clear()

    def call(self, name: str, *arguments: Any) -> Answer:
        """Returns storage's answer after the model has confirmed it."""
        call = Call(name, arguments)
        answer = make(self.stored.database, call, killed=self.dies_next)
        note(f"{call} → {answer}{', and was killed' * self.dies_next}")
        if not self.dies_next:
            self.model.apply(call, answer)
        self.dies_next = False
        compare(self.stored, self.model)
        return answer

    def key(self, pick: int, *states: str) -> str:
        """Returns the id of a generation in one of these states; 0 picks the most recently used."""
        jobs = self.model.jobs
        meant = [key for key in self.keys if key in jobs and jobs[key].state in states]
        key = _chosen(pick, meant, self.keys)
        self._touch(key)
        return key

    def lease(self, pick: int) -> tuple[str, str]:
        """Returns id and token of an active lease, or for 4 and 5 of one that another has superseded."""
        worked_on = {job.id: job for job in self.model.jobs.values() if job.state == "processing"}
        if pick in (4, 5):
            meant = [lease for lease in self.leases if lease[0] in worked_on and worked_on[lease[0]].token != lease[1]]
        else:
            meant = [(job.id, job.token) for job in worked_on.values() if job.token and not self.model.has_ended(job)]
        lease = _chosen(pick, meant, self.leases)
        self._touch(lease[0])
        return lease

    @initialize(asked=st.lists(requests, min_size=1, max_size=3))
    def begin(self, asked: list[Request]) -> None:
        self.keys += self.call("create", [replace(request, request_id=None) for request in asked])
        self.claim("w0", MODELS, 30.0)

    @rule(asked=st.lists(requests, min_size=1, max_size=2))
    def create(self, asked: list[Request]) -> None:
        answer = self.call("create", asked)
        if answer not in REJECTIONS:
            self.keys += answer

    @rule(sound=requests, refused=refused_requests)
    def create_none_of_two(self, sound: Request, refused: Request) -> None:
        assert self.call("create", [sound, refused]) in REJECTIONS

    @rule(worker=st.sampled_from(["w1", "w2"]), models=st.sampled_from([MODELS, ("small",)]), seconds=lease_seconds)
    def claim(self, worker: str, models: tuple[str, ...], seconds: float) -> None:
        answer = self.call("claim", worker, models, seconds)
        if answer is not None:
            self._touch(answer[0])
            self.leases.append(answer[:2])

    @rule(
        pick=picks,
        seconds=lease_seconds,
        stage=st.sampled_from([None, "generating"]),
        progress=st.sampled_from([0.0, 0.25, 1.0]),
    )
    def renew(self, pick: int, seconds: float, stage: str | None, progress: float) -> None:
        self.call("renew", *self.lease(pick), seconds, stage, progress)

    @rule(pick=picks, size=st.sampled_from([1, 5_000_000]), seconds=st.sampled_from([0.0, 12.34]))
    def complete(self, pick: int, size: int, seconds: float) -> None:
        key, token = self.lease(pick)
        self.call("complete", key, token, f"{token}.wav", size, seconds)

    @rule(pick=picks, retryable=st.sampled_from([True, True, False]))
    def fail(self, pick: int, retryable: bool) -> None:
        self.call("fail", *self.lease(pick), retryable)

    @rule(pick=picks)
    def hand_back(self, pick: int) -> None:
        self.call("hand_back", *self.lease(pick))

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        self.call("cancel", self.key(pick, "pending", "processing"))

    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        self.call("retry", self.key(pick, "failed"))

    @rule(pick=picks)
    def delete(self, pick: int) -> None:
        self.call("delete", self.key(pick, "completed", "failed", "cancelled"))

    @rule(pick=picks, patch=st.sampled_from([{"mood": "calm"}, {"bpm": None, "mood": None}, {"key": "Cm"}]))
    def update_metadata(self, pick: int, patch: dict[str, Any]) -> None:
        self.call("update_metadata", self.key(pick, *STATES), patch)

    @rule(pick=picks, rating=st.integers(0, 5))
    def rate(self, pick: int, rating: int) -> None:
        self.call("rate", self.key(pick, *STATES), rating)

    @rule(pick=picks, size=st.sampled_from([1, 6_000_000]))
    def update_file(self, pick: int, size: int) -> None:
        self.call("update_file", self.key(pick, "completed"), size, "0f" * 32)

    @rule(model=st.sampled_from(MODELS))
    def create_by_library(self, model: str) -> None:
        self.keys.append(self.call("create_by_library", "drums", model, "outputs/drums.wav"))

    @rule(pick=picks, state=st.sampled_from(STATES))
    def mark_by_library(self, pick: int, state: str) -> None:
        key = self.key(pick, *SOURCE_STATES[state])
        job = self.model.jobs.get(key)
        if state != "completed" or job is None or job.path:  # COMPLETED needs a file.
            self.call("mark", key, state)

    @rule()
    def sweep(self) -> None:
        self.call("sweep")

    @rule(over=st.sampled_from([timedelta(), -MICROSECOND, timedelta(days=1)]))
    def time_passes(self, over: timedelta) -> None:
        """Sets the clock to the end of the next lease or retry delay, just before it, or a day later."""
        jobs = self.model.jobs.values()
        moments = [moment for job in jobs if job.state == "processing" and (moment := job.lease_ends)]
        moments += [moment for job in jobs if (moment := job.not_before)]
        ahead = [moment for moment in moments if moment > self.model.now]
        self._set_clock(max(self.model.now, min(ahead, default=self.model.now) + over))

    @rule(pick=picks)
    def another_takes_over(self, pick: int) -> None:
        """Another worker claims a generation whose lease has expired."""
        job = self.model.jobs.get(self.lease(pick % 4)[0])
        if job and job.lease_ends:
            self._set_clock(max(self.model.now, job.lease_ends))
            self.claim("w2", (job.request.model_name,), 30.0)

    @rule(seconds=st.sampled_from([599, 1, 601]))
    def waiting_ages(self, seconds: int) -> None:
        """Advances the clock by about one level of priority."""
        self._set_clock(self.model.now + timedelta(seconds=seconds))

    @rule()
    def next_process_dies(self) -> None:
        """The next call ends before its commit. Later calls may still use its answer."""
        self.dies_next = True

    def _touch(self, key: str) -> None:
        if key in self.keys:
            self.keys.remove(key)
        self.keys.append(key)

    def _set_clock(self, moment: datetime) -> None:
        self.model.now = moment
        self.stored.set_clock(moment)


def _chosen(pick: int, meant: list[T], all_ever: list[T]) -> T:
    among = meant if meant and pick < 6 else all_ever
    return among[-1 - pick % len(among)]


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest) -> Iterator[ClockedDatabase]:
    if request.param == "sqlite":
        with Database("sqlite://") as database:
            yield ClockedSqlite(database)
        return
    server: psycopg.Connection[Any] = request.getfixturevalue("postgres")
    with clocked_postgres(server) as clocked:
        yield clocked


@pytest.mark.timeout(400)  # The long profile runs many more examples, possibly on a busy machine.
def test_random_call_sequences_match_model(stored: ClockedDatabase) -> None:
    # The full number of examples takes too long for every run; Postgres is several times slower than SQLite.
    share = 4 if stored.database.is_sqlite else 20
    run_state_machine_as_test(
        lambda: Storage(stored),
        settings=settings(
            max_examples=settings().max_examples // share,
            stateful_step_count=14,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    assert list(find_violations(stored.database)) == []


def test_retry_delay_ends_on_time_or_when_marked(stored: ClockedDatabase) -> None:
    stored.clear()
    model = Model(START)

    def call(name: str, *arguments: Any) -> Answer:
        answer = make(stored.database, Call(name, arguments))
        model.apply(Call(name, arguments), answer)
        compare(stored, model)
        return answer

    call("create", [Request()])
    key, token, _ = call("claim", "w", MODELS, 30.0)
    call("fail", key, token, True)
    for model.now in (START + timedelta(seconds=1) - MICROSECOND, START + timedelta(seconds=1)):
        stored.set_clock(model.now)
        claimed = call("claim", "w", MODELS, 30.0)
    call("fail", *claimed[:2], True)
    for state in ("processing", "failed", "pending"):
        call("mark", key, state)
