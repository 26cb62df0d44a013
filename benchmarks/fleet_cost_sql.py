"""What each operation of a generation's life costs in SQL, on Postgres: round trips, time, and CPU on both sides."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.pq import Trace
from sqlalchemy import event
from sqlalchemy.orm import Session

from benchmarks.storage_clients import METADATA, PROMPT
from benchmarks.storage_rows import CLIENTS
from storage_service.db.database import Database
from storage_service.domain import creation, leases, lifecycle, queue
from storage_service.domain.queue_limits import QueueLimits
from storage_service.domain.row_insertion import Origin
from storage_service.events.changes import announce_later
from storage_service.states import GenerationStage

JOBS = 150
"""Generations that are taken through their life."""
LIMITS = QueueLimits(max_pending=10_000_000, max_pending_per_client=10_000_000)


@dataclass(frozen=True)
class SqlCost:
    """The cost of one operation, which is one transaction."""

    round_trips: int
    """Answers of the server that the client waited for, with those to BEGIN and COMMIT."""
    milliseconds: float
    """The median, with this process's own work."""
    client_cpu_milliseconds: float
    postgres_cpu_milliseconds: float
    wal_bytes: float
    """What is written durably, and sent to a replica."""


def postgres_cpu_seconds(backend_pid: int) -> float:
    """Returns the CPU time of all processes of the Postgres server so far."""
    postmaster = psutil.Process(backend_pid).parent()
    assert postmaster is not None
    own = postmaster.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system  # Those of processes that have ended.
    for process in postmaster.children():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def measure_sql(database: Database, control: psycopg.Connection[Any]) -> dict[str, SqlCost]:
    """Takes generations through their life, one operation after the other, in a database that has other rows."""
    claimed: list[tuple[str, str]] = []
    created: list[str] = []
    worker, model = "host-1-abcd", "fleet"  # Of this model there are no other rows.

    def create(session: Session, number: int) -> None:
        new = creation.NewGeneration(f"{PROMPT}, {number % 50}", model, 30.0, 32000, 2)
        origin = Origin(CLIENTS[number % len(CLIENTS)])
        created.append(creation.create(session, new, origin=origin, limits=LIMITS).id)

    def claim(session: Session, _: int) -> None:
        row = leases.claim(session, worker, [model], 60.0)
        assert row is not None
        claimed.append((row.id, row.lease_token or ""))

    def claim_nothing(session: Session, _: int) -> None:
        assert leases.claim(session, worker, ["nobody-has-this"], 60.0) is None

    def claim_of_several(session: Session, _: int) -> None:
        assert leases.claim(session, worker, ["nobody-has-this", "nor-this"], 60.0) is None

    def renew(session: Session, number: int) -> None:
        assert leases.renew(session, *claimed[number], 60.0, GenerationStage.GENERATING, 0.5) is not None

    def complete(session: Session, number: int) -> None:
        completion = leases.Completion(f"outputs/{claimed[number][0]}.wav", 3_072_044, 1.5, "1", METADATA)
        leases.complete(session, *claimed[number], completion)

    def read(session: Session, number: int) -> None:
        lifecycle.get(session, created[number])

    def sweep(session: Session, _: int) -> None:
        leases.expire_leases(session)
        queue.list_models_with_pending(session)
        queue.seconds_until_due(session)

    operations: dict[str, Callable[[Session, int], None]] = {
        "create": create,
        "claim": claim,
        "renew": renew,
        "read (a watcher's)": read,
        "complete": complete,
        "claim, none there, one model": claim_nothing,
        "claim, none there, two models": claim_of_several,
        "sweep": sweep,
    }
    return {name: _measure(database, control, operation) for name, operation in operations.items()}


def _measure(
    database: Database, control: psycopg.Connection[Any], operation: Callable[[Session, int], None]
) -> SqlCost:
    def run(number: int) -> None:
        with database.write() as session:
            announce_later(session)  # As a server does.
            operation(session, number)

    with _traced(database) as messages:
        run(0)
    for number in range(1, 10):  # Prepared statements and caches.
        run(number)
    backend_pid, times = control.info.backend_pid, []
    wal, client, server = _wal_position(control), time.process_time(), postgres_cpu_seconds(backend_pid)
    for number in range(10, JOBS):
        started_at = time.perf_counter()
        run(number)
        times.append(time.perf_counter() - started_at)
    count = len(times)
    client, server = time.process_time() - client, postgres_cpu_seconds(backend_pid) - server
    return SqlCost(
        messages["ReadyForQuery"],
        statistics.median(times) * 1e3,
        client / count * 1e3,
        server / count * 1e3,
        (_wal_position(control) - wal) / count,
    )


def _wal_position(control: psycopg.Connection[Any]) -> float:
    (position,) = control.execute("SELECT (pg_current_wal_lsn() - '0/0')::float8").fetchone() or (0.0,)
    return float(position)


@contextmanager
def _traced(database: Database) -> Iterator[Counter[str]]:
    """Counts the messages of libpq's trace, by kind. The counts are complete after the block."""
    messages: Counter[str] = Counter()
    traced: list[Any] = []
    with tempfile.TemporaryDirectory() as folder, Path(folder, "trace").open("w") as file:

        def start(connection: Any, _record: object, _proxy: object) -> None:
            connection.pgconn.trace(file.fileno())
            connection.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
            traced.append(connection.pgconn)

        event.listen(database.engine, "checkout", start)
        try:
            yield messages
        finally:
            event.remove(database.engine, "checkout", start)
            for connection in traced:
                connection.untrace()
        for line in Path(folder, "trace").read_text(errors="replace").splitlines():
            _, _, kind, *_ = [*line.split("\t"), "", "", ""]
            messages[kind] += 1
