"""Many workers until all jobs are finished: threads on Postgres with expiring leases, and processes that are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import select, update

from storage_service.db import schema
from storage_service.db.clock import now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation, Prompt
from storage_service.maintenance.integrity import find_violations
from storage_service.states import GenerationStatus
from tests.support.clocked_database import START, ClockedPostgres, clocked_postgres
from tests.support.lifecycle_calls import make
from tests.support.lifecycle_model import REJECTIONS, Answer, Call, Request

pytestmark = pytest.mark.slow

WORKERS = 6
JOBS = 48
ROWS = "SELECT id, status, attempt, max_attempts, file_path, error_message FROM generations"


class WorkerPool:
    """Concurrent workers. One that finds nothing to claim advances the clock, so that leases of others expire."""

    def __init__(self, stored: ClockedPostgres, second: Database) -> None:
        self.stored = stored
        self.databases = [stored.database, second]
        self.now = START
        self.clock = threading.Lock()
        self.answered: list[tuple[Call, Answer]] = []
        self.forgotten: list[tuple[str, str]] = []
        """Leases whose holder returns to them too late."""

    def call(self, worker: int, name: str, *arguments: Any) -> Answer:
        call = Call(name, arguments)
        answer = make(self.databases[worker % 2], call)
        self.answered.append((call, answer))
        return answer

    def work(self, worker: int) -> None:
        """Works until all generations are finished."""
        dice = random.Random(worker)
        while True:
            claimed = self.call(worker, "claim", f"w{worker}", ["small", "large"], 2.0)
            if claimed is not None:
                self._work_on(worker, claimed[:2], dice)
            elif not self.let_time_pass():
                return
            elif self.forgotten:
                self.complete(worker, self.forgotten.pop())

    def let_time_pass(self) -> bool:
        """Advances the clock by a second. Returns False if no work is left."""
        with self.clock:
            if not self.stored.rows("SELECT 1 FROM generations WHERE status IN ('pending', 'processing') LIMIT 1"):
                return False
            self.now += timedelta(seconds=1)
            self.stored.set_clock(self.now)
            return True

    def _work_on(self, worker: int, lease: tuple[str, str], dice: random.Random) -> None:
        match dice.randrange(10):
            case 0:
                self.call(worker, "fail", *lease, True)
            case 1:
                self.call(worker, "hand_back", *lease)
            case 2 | 3:
                self.forgotten.append(lease)
            case 4:
                self.call(worker, "cancel", lease[0])
                self.call(worker, "renew", *lease, 2.0, None, 0.5)
            case 5:
                self.call(worker, "fail", *lease, False)
                self.call(worker, "retry", lease[0])
            case _:
                self.call(worker, "renew", *lease, 2.0, "generating", 0.5)
                self.complete(worker, lease)

    def complete(self, worker: int, lease: tuple[str, str]) -> Answer:
        return self.call(worker, "complete", *lease, f"{lease[1]}.wav", 1000, 1.0)


@pytest.fixture
def stored(postgres: psycopg.Connection[Any]) -> Iterator[ClockedPostgres]:
    with clocked_postgres(postgres, connections=WORKERS) as clocked:
        yield clocked


def test_concurrent_workers_finish_each_generation_once(
    stored: ClockedPostgres, open_database: Callable[..., Database]
) -> None:
    # Two connection pools, as with two servers.
    second = open_database(stored.database.url, connections=WORKERS)
    worker_pool = WorkerPool(stored, second)
    asked = [Request(model_name=model) for model in ("small", "large")] * (JOBS // 2)
    keys = worker_pool.call(0, "create", asked)
    gone = worker_pool.call(0, "claim", "gone", ["small", "large"], 2.0)
    for _ in range(3):
        worker_pool.let_time_pass()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(worker_pool.work, range(WORKERS)))
    assert worker_pool.complete(0, gone[:2]) == "Aborted", "the lease had expired"

    calls_by_id: dict[str, dict[str, list[Any]]] = {key: defaultdict(list) for key in keys}
    for call, answer in worker_pool.answered:
        assert answer != "Unavailable", call
        if call.name == "claim" and answer is not None:
            calls_by_id[answer[0]]["claim"].append(answer)
        elif call.name not in ("create", "claim") and answer not in REJECTIONS:
            calls_by_id[call.arguments[0]][call.name].append(call.arguments)
    rows = {row[0]: row[1:] for row in stored.rows(ROWS)}
    assert rows.keys() == set(keys)
    for key, (status, attempt, max_attempts, path, error) in rows.items():
        calls = calls_by_id[key]
        assert [number for _, _, number in sorted(calls["claim"], key=lambda claim: claim[2])] == [
            *range(1, attempt + 1)
        ], "every claim has a number of its own"
        assert max_attempts >= attempt
        completed, cancelled = calls["complete"], calls["cancel"]
        assert (len(completed), len(cancelled)) == (status == "completed", status == "cancelled")
        assert path == (completed[0][2] if completed else None)
        assert status in ("completed", "cancelled") or (status == "failed" and attempt == max_attempts and error)
    assert {status for status, *_ in rows.values()} >= {"completed", "cancelled"}
    assert list(find_violations(stored.database)) == []


async def let_workers_die(url: str, after: list[int]) -> list[tuple[Call, Answer]]:
    """Kills each worker after this many answers, during its next call. Returns all answered calls."""
    workers = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.dying_workers", url, str(len(after))),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert workers.stdout is not None
    answered: list[tuple[Call, Answer]] = []
    answers_left: dict[int, int] = {}
    try:
        async for line in workers.stdout:
            process, name, arguments, answer = json.loads(line)
            answered.append((Call(name, tuple(arguments)), answer))
            answers_left.setdefault(process, after[len(answers_left) % len(after)])
            answers_left[process] -= 1
            if answers_left[process] == 0:
                os.kill(process, signal.SIGKILL)
        assert await workers.wait() == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(workers.pid, signal.SIGKILL)
    assert len(answers_left) == len(after)
    assert all(left <= 0 for left in answers_left.values()), "a worker ended by itself"
    return answered


async def test_killed_workers_lose_no_acknowledged_work(empty_url: str, open_database: Callable[..., Database]) -> None:
    schema.upgrade(empty_url)
    after = [5, 11, 17, 23]
    answered = await let_workers_die(empty_url, after)

    database = open_database(empty_url)
    assert list(find_violations(database)) == []
    rows = {row.id: row for row in _rows(database)}
    created = {answer[0] for call, answer in answered if call.name == "create"}
    claims = [answer for call, answer in answered if call.name == "claim" and answer is not None]
    ended = {
        name: {call.arguments[0]: call.arguments for call, answer in answered if call.name == name and answer == state}
        for name, state in (("complete", "completed"), ("cancel", "cancelled"))
    }
    assert created <= rows.keys()
    for key, (_, _, path, *_) in ended["complete"].items():
        assert (rows[key].status, rows[key].file_path) == (GenerationStatus.COMPLETED, path)
    assert all(rows[key].status is GenerationStatus.CANCELLED for key in ended["cancel"])
    assert len({(key, attempt) for key, _, attempt in claims}) == len({token for _, token, _ in claims}) == len(claims)
    # Only the last call of each worker may have been committed without an answer.
    unheard = [
        len(rows) - len(created),
        sum(row.attempt for row in rows.values()) - len(claims),
        sum(row.is_complete for row in rows.values()) - len(ended["complete"]),
        sum(row.status is GenerationStatus.CANCELLED for row in rows.values()) - len(ended["cancel"]),
    ]
    assert min(unheard) >= 0
    assert sum(unheard) <= len(after)

    with database.write() as session:  # As if all leases and retry delays had ended.
        past = {"lease_expires_at": now_plus(-1.0), "lease_check_at": now_plus(-1.0)}
        session.execute(update(Generation).where(Generation.status == GenerationStatus.PROCESSING).values(past))
        session.execute(update(Generation).values(not_before=None))
    while claimed := make(database, Call("claim", ("next", ["small"], 600.0))):
        key, token, _ = claimed
        assert make(database, Call("complete", (key, token, f"{token}.wav", 1000, 1.0))) == "completed"
    for key, token, _ in claims:
        late = make(database, Call("renew", (key, token, 600.0, None, 0.5)))
        assert late in ("Aborted", "FailedPrecondition", "cancelled")
    finished = _rows(database)
    assert all(row.is_finished for row in finished)
    assert all(row.attempt == row.max_attempts for row in finished if row.is_failed)
    with database.read() as session:
        assert session.scalars(select(Prompt.used_count)).all() == [len(finished)]
    assert list(find_violations(database)) == []


def _rows(database: Database) -> list[Generation]:
    with database.read() as session:
        return list(session.scalars(select(Generation)))
