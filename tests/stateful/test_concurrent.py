"""Concurrent calls on Postgres are linearizable (Herlihy and Wing, 1990): their answers and the final rows equal what
the model gives for the same calls one after another, in some order.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, combinations
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from tests.support.clocked_database import START, ClockedPostgres, clocked_postgres
from tests.support.lifecycle_calls import compare, make
from tests.support.lifecycle_model import Answer, Call, Model, ModelMismatch, Request

pytestmark = pytest.mark.slow

WORKERS = 3
ROUNDS = 8
"""Repetitions of each race. In most of them, the calls overlap."""
REQUEST_ID = str(uuid.UUID(int=1, version=4))
ONCE = Request("requested once", request_id=REQUEST_ID)
ONCE_BEFORE = Request("requested before", request_id=str(uuid.UUID(int=2, version=4)))
OWN = "the lease that this worker claimed last"


@dataclass(frozen=True)
class Made:
    """A call, its answer, and when it began and ended, in seconds of this process's clock."""

    call: Call
    answer: Answer
    began: float
    ended: float

    def overlaps(self, other: Made) -> bool:
        return self.began < other.ended and other.began < self.ended

    def locks(self, ended_leases: frozenset[str]) -> frozenset[str]:
        """The ids of the rows that it may have locked."""
        if self.call.name in ("claim", "sweep"):
            claimed = {self.answer[0]} if isinstance(self.answer, tuple) else set()
            return ended_leases | claimed
        return frozenset() if self.call.name == "create" else frozenset({self.call.arguments[0]})


class Situation:
    """The initial rows: one generation of each kind, by name, and two leases, one of which has expired."""

    def __init__(self, stored: ClockedPostgres) -> None:
        # A rank depends on what the queue was like when the call began, not on what others commit meanwhile.
        self.stored, self.model = stored, Model(START, checks_ranks=False)
        stored.clear()
        self.failed, token = self._claimed(60.0)
        self._call("fail", self.failed, token, False)
        self.held, self.held_token = self._claimed(60.0)
        self.late, self.late_token = self._claimed(1.0)
        self.asked, self.waiting, _ = self._call("create", [ONCE_BEFORE, Request(priority=1), Request()])
        self.model.now += timedelta(seconds=2)
        stored.set_clock(self.model.now)

    def call_of(self, word: str, own: tuple[str, str] | None) -> Call | None:
        """Returns a call by its name and subject, or None if it needs a lease that does not exist."""
        name, _, about = word.partition(" ")
        leases = {"held": (self.held, self.held_token), "late": (self.late, self.late_token), "own": own}
        rest: dict[str, tuple[Any, ...]] = {
            "renew": (30.0, None, 0.5),
            "complete": ("a.wav", 1000, 1.0),
            "fail": (True,),
            "hand_back": (),
        }
        if name in rest:
            lease = leases[about]
            return lease and Call(name, (*lease, *rest[name]))
        whole: dict[str, tuple[Any, ...]] = {
            "claim": ("w", ["small"], 60.0),
            "sweep": (),
            "create once": ([ONCE],),
            "create two": ([ONCE, Request()],),
            "create before": ([ONCE_BEFORE],),
        }
        if word in whole:
            return Call(name, whole[word])
        if name == "update_metadata":
            return Call(name, (self.held, {about: "new"}))
        if name == "rate":
            return Call(name, (self.held, int(about)))
        if name == "update_file":
            return Call(name, (self.held, 2000, "0f" * 32))
        return Call(name, (getattr(self, about),))

    def _call(self, name: str, *arguments: Any) -> Answer:
        call = Call(name, arguments)
        answer = make(self.stored.database, call)
        self.model.apply(call, answer)
        return answer

    def _claimed(self, seconds: float) -> tuple[str, str]:
        """Creates and claims a generation; returns its id and lease token."""
        self._call("create", [Request()])
        key, token, _ = self._call("claim", "w", ["small"], seconds)
        return key, token


OF_A_LEASE = "renew", "complete", "fail", "hand_back"
OF_ANYBODY = "cancel", "delete", "retry"
OF_ITS_ROW = "update_metadata mood", "update_metadata key", "rate 4", "update_file"
WORDS = {
    "held": [*(f"{name} held" for name in (*OF_A_LEASE, *OF_ANYBODY)), *OF_ITS_ROW],
    "late": ["claim", "sweep", *(f"{name} late" for name in (*OF_A_LEASE, *OF_ANYBODY)), "complete own"],
    "waiting": ["claim", *(f"{name} waiting" for name in OF_ANYBODY), *(f"{name} own" for name in OF_A_LEASE)],
    "failed": ["claim", *(f"{name} failed" for name in OF_ANYBODY), "complete own"],
    "asked": ["create once", "create two", "create before", "delete asked", "cancel asked", "claim"],
}
"""The calls on each of the initial generations, so that the calls of one example conflict."""

scripts = st.sampled_from([*WORDS.values(), sorted(set(chain.from_iterable(WORDS.values())))]).flatmap(
    lambda words: st.lists(st.lists(st.sampled_from(words), min_size=1, max_size=3), min_size=2, max_size=WORKERS)
)


def play(situation: Situation, script: Sequence[Sequence[str]], pool: ThreadPoolExecutor) -> list[list[Made]]:
    """Runs all workers at once and returns each worker's calls in order."""
    together = threading.Barrier(len(script))

    def work(words: Sequence[str]) -> list[Made]:
        made: list[Made] = []
        own: tuple[str, str] | None = None
        together.wait(60)
        for word in words:
            call = situation.call_of(word, own)
            if call is not None:
                began = time.perf_counter()
                answer = make(situation.stored.database, call)
                made.append(Made(call, answer, began, time.perf_counter()))
                if call.name == "claim" and isinstance(answer, tuple):
                    own = answer[:2]
        return made

    return list(pool.map(work, script))


def has_an_order(situation: Situation, made: list[list[Made]]) -> bool:
    """Whether the model gives all these answers and the stored rows for some order of the calls. The order must keep
    each worker's sequence, and the order of any two calls that did not overlap."""
    all_made = list(chain.from_iterable(made))
    late = frozenset({situation.late})

    def follow(model: Model, left: list[list[Made]]) -> bool:
        heads = [calls[0] for calls in left if calls]
        if not heads:
            try:
                compare(situation.stored, model)
            except ModelMismatch:
                return False
            return True
        for index, calls in enumerate(left):
            if not calls or any(other.ended < calls[0].began for other in heads):
                continue
            rest = [calls[1:] if index == at else others for at, others in enumerate(left)]
            if any(follow(after, rest) for after in _after(model, calls[0], all_made, late)):
                return True
        return False

    return follow(situation.model, made)


def _after(model: Model, made: Made, all_made: list[Made], ended_leases: frozenset[str]) -> Iterator[Model]:
    """Yields the model after the call, for each set of locked rows that the call may have skipped."""
    others = [other.locks(ended_leases) for other in all_made if other is not made and made.overlaps(other)]
    lockable = sorted(frozenset().union(*others)) if made.call.name in ("claim", "sweep") else []
    for locked in chain.from_iterable(combinations(lockable, size) for size in range(len(lockable) + 1)):
        after = model.copy()
        after.locked = frozenset(locked)
        try:
            after.apply(made.call, made.answer)
        except ModelMismatch:
            continue
        after.locked = frozenset()
        yield after


@pytest.fixture
def stored(postgres: psycopg.Connection[Any]) -> Iterator[ClockedPostgres]:
    with clocked_postgres(postgres) as clocked:
        yield clocked


def check(stored: ClockedPostgres, script: Sequence[Sequence[str]], pool: ThreadPoolExecutor) -> None:
    situation = Situation(stored)
    made = play(situation, script, pool)
    answers = [(one.call, one.answer) for one in chain.from_iterable(made)]
    assert all(answer != "Unavailable" for _, answer in answers), answers
    assert has_an_order(situation, made), "\n".join(map(str, answers))


def test_concurrent_calls_are_linearizable(stored: ClockedPostgres) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:

        @settings(max_examples=settings().max_examples // 16, suppress_health_check=[HealthCheck.too_slow])
        @given(scripts)
        def play_any(script: list[list[str]]) -> None:
            check(stored, script, pool)

        play_any()


RACES = [
    ["claim", "claim", "claim"],
    ["create once", "create once", "create two"],
    ["create before", "create before", "delete asked"],
    ["sweep", "renew late", "claim"],
    ["retry failed", "delete failed", "cancel failed"],
    ["complete held", "hand_back held", "cancel held"],
    ["update_metadata mood", "update_metadata key", "complete held"],
    ["update_file", "update_metadata mood", "complete held"],
    ["rate 4", "rate 5", "complete held"],
]


def test_closest_races_are_linearizable(stored: ClockedPostgres) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        for race in RACES:
            for _ in range(ROUNDS):
                check(stored, [[word] for word in race], pool)


def test_create_after_concurrent_delete_of_earlier_request_creates_new(stored: ClockedPostgres) -> None:
    database = stored.database
    (first,) = make(database, Call("create", ([ONCE],)))

    deleted = []

    def delete(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO generations " in statement and not deleted:
            deleted.append(make(database, Call("delete", (first,))))

    event.listen(database.engine, "after_cursor_execute", delete)
    (second,) = make(database, Call("create", ([ONCE],)))
    assert deleted == ["gone"]
    assert second != first
    assert stored.rows("SELECT id FROM generations") == [(second,)]
    assert stored.rows("SELECT used_count FROM prompts") == [(2,)]
