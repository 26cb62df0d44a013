"""What the operations cost through real storage servers on Postgres: CPU on each side, waiting claims, and watchers."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg

from benchmarks.fleet_cost_sql import postgres_cpu_seconds
from benchmarks.storage_clients import PROMPT, complete_by_call
from benchmarks.storage_rows import CLIENTS
from dgx_music.channel import connect
from dgx_music.storage.v1 import storage_pb2 as pb
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.events.changes import CHANNEL
from tests.support.storage_servers import storage_server

MODEL = "fleet"
CONCURRENCY = 32
TIMEOUT_SECONDS = 60.0
LONG_POLL_SECONDS = 30.0
ROUNDS, JOBS = 3, 200
"""Generations that are taken through their life in each round, 32 at a time."""
HERD_JOBS = 60
"""Generations that are created one by one while workers wait for them."""
WATCHED_CHANGES = 40
NOTIFY_WRITERS, NOTIFY_COMMITS = 8, 800

Lease = tuple[str, str]


@dataclass(frozen=True)
class OperationCost:
    """One operation, many at a time."""

    per_second: float
    storage_cpu_milliseconds: float
    """Of all storage servers together, for each."""
    postgres_cpu_milliseconds: float
    transactions: float
    """Of all servers on the database, for each."""


@dataclass(frozen=True)
class WakeCost:
    """One generation, created while workers or watchers wait."""

    transactions: float
    storage_cpu_milliseconds: float
    postgres_cpu_milliseconds: float
    delay_milliseconds: float
    """The median, until a worker has it or a watcher is told."""


class Fleet:
    """Storage servers on one database, and what they have used."""

    def __init__(self, control: psycopg.Connection[Any], processes: Sequence[int], stubs: Sequence[Any]) -> None:
        self.control, self.processes = control, [psutil.Process(pid) for pid in processes]
        self.stubs = stubs
        self._turn = itertools.count()

    @property
    def stub(self) -> Any:
        """The next server's, one after another."""
        return self.stubs[next(self._turn) % len(self.stubs)]

    async def used(self) -> tuple[float, float, float]:
        """CPU seconds of storage and of Postgres, and transactions, so far."""
        await asyncio.sleep(1.0)  # Postgres's sessions report their transactions at most once a second.
        storage = sum(sum(process.cpu_times()[:2]) for process in self.processes)
        query = "SELECT sum(xact_commit + xact_rollback)::float8 FROM pg_stat_database WHERE datname <> 'postgres'"
        (transactions,) = self.control.execute(query).fetchone() or (0.0,)
        return storage, postgres_cpu_seconds(self.control.info.backend_pid), transactions

    async def create(self, number: int) -> str:
        request = pb.CreateGenerationRequest(
            prompt=f"{PROMPT}, {number % 50}",
            model_name=MODEL,
            duration_seconds=30,
            sample_rate_hz=32000,
            channels=2,
        )
        caller = (("dgx-music-client", CLIENTS[number % len(CLIENTS)]),)
        created = await self.stub.CreateGeneration(request, timeout=TIMEOUT_SECONDS, metadata=caller)
        return str(created.generation.id)

    async def claim(self, wait_seconds: float = 0.0) -> Lease:
        request = pb.ClaimGenerationRequest(
            worker_id="worker", model_names=[MODEL], lease_seconds=600, wait_seconds=wait_seconds
        )
        claimed = await self.stub.ClaimGeneration(request, timeout=TIMEOUT_SECONDS)
        return claimed.generation.id, claimed.lease_token

    async def renew(self, lease: Lease, progress: float) -> None:
        request = pb.RenewLeaseRequest(
            id=lease[0],
            lease_token=lease[1],
            lease_seconds=600,
            stage=pb.GENERATION_STAGE_GENERATING,
            progress=progress,
        )
        await self.stub.RenewLease(request, timeout=TIMEOUT_SECONDS)

    async def complete(self, lease: Lease) -> None:
        await complete_by_call(self.stub, lease)


@asynccontextmanager
async def fleet(url: str, servers: int, control: psycopg.Connection[Any]) -> AsyncIterator[Fleet]:
    """Starts so many storage servers on the database."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        processes, stubs = [], []
        for number in range(servers):
            address = f"unix:{folder}/{number}.sock"
            processes.append(await stack.enter_async_context(storage_server(url, address)))
            stubs.append(StorageServiceStub(await stack.enter_async_context(connect(address))))
        yield Fleet(control, [process.pid for process in processes], stubs)


async def measure_operations(fleet: Fleet) -> dict[str, OperationCost]:
    """Creates, claims, renews and completes generations, 32 at a time, one kind of operation after the other.

    Of the rounds, that with the least CPU counts: other work on the machine makes each operation dearer, never cheaper.
    """
    rounds = [await _measure_round(fleet) for _ in range(ROUNDS)]
    return {
        name: min((each[name] for each in rounds), key=lambda cost: cost.storage_cpu_milliseconds) for name in rounds[0]
    }


async def _measure_round(fleet: Fleet) -> dict[str, OperationCost]:
    leases: list[Lease] = []

    async def claim(_: int) -> None:
        leases.append(await fleet.claim())

    async def claim_nothing(_: int) -> None:
        assert await fleet.claim() == ("", "")

    async def renew(number: int) -> None:
        await fleet.renew(leases[number], 0.5)

    async def complete(number: int) -> None:
        await fleet.complete(leases[number])

    operations: dict[str, Callable[[int], Awaitable[Any]]] = {
        "create": fleet.create,
        "claim": claim,
        "renew": renew,
        "complete": complete,
        "claim, none there": claim_nothing,
    }
    return {name: await _many(fleet, JOBS, operation) for name, operation in operations.items()}


async def _many(fleet: Fleet, count: int, operation: Callable[[int], Awaitable[Any]]) -> OperationCost:
    numbers = iter(range(count))

    async def repeat() -> None:
        for number in numbers:
            await operation(number)

    before, started_at = await fleet.used(), time.perf_counter()
    await asyncio.gather(*(repeat() for _ in range(CONCURRENCY)))
    seconds = time.perf_counter() - started_at
    storage, postgres, transactions = (b - a for a, b in zip(before, await fleet.used(), strict=True))
    return OperationCost(count / seconds, storage / count * 1e3, postgres / count * 1e3, transactions / count)


async def measure_herd(fleet: Fleet, workers: int) -> WakeCost:
    """Creates generations one by one, while so many workers wait for work, spread over the servers."""
    claimed_at: asyncio.Queue[tuple[float, Lease]] = asyncio.Queue()

    async def worker() -> None:
        while True:
            lease = await fleet.claim(LONG_POLL_SECONDS)
            if lease[1]:
                claimed_at.put_nowait((time.perf_counter(), lease))

    tasks = [asyncio.create_task(worker()) for _ in range(workers)]
    try:
        await asyncio.sleep(2.0 + workers / 200)  # Until all of them wait.
        delays, leases = [], []
        before = await fleet.used()
        for number in range(HERD_JOBS):
            started_at = time.perf_counter()
            await fleet.create(number)
            at, lease = await claimed_at.get()
            delays.append(at - started_at)
            leases.append(lease)
        storage, postgres, transactions = (b - a for a, b in zip(before, await fleet.used(), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for lease in leases:
        await fleet.complete(lease)
    return WakeCost(
        transactions / HERD_JOBS,
        storage / HERD_JOBS * 1e3,
        postgres / HERD_JOBS * 1e3,
        statistics.median(delays) * 1e3,
    )


async def measure_watchers(fleet: Fleet, watchers: int) -> WakeCost:
    """Renews the lease of one generation that so many watch, spread over the servers; waits until all were told."""
    await fleet.create(0)
    lease = await fleet.claim()
    told: asyncio.Queue[float] = asyncio.Queue()

    async def watch() -> None:
        async for change in fleet.stub.WatchGeneration(pb.WatchGenerationRequest(id=lease[0]), timeout=600):
            told.put_nowait(change.generation.progress)

    tasks = [asyncio.create_task(watch()) for _ in range(watchers)]
    try:
        for _ in range(watchers):  # The first snapshots.
            await told.get()
        delays, before = [], await fleet.used()
        for number in range(1, WATCHED_CHANGES + 1):
            progress, started_at = number / (WATCHED_CHANGES + 1), time.perf_counter()
            await fleet.renew(lease, progress)
            for _ in range(watchers):
                await told.get()
            delays.append(time.perf_counter() - started_at)
        storage, postgres, transactions = (b - a for a, b in zip(before, await fleet.used(), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        with suppress(Exception):
            await asyncio.gather(*tasks, return_exceptions=True)
    await fleet.complete(lease)
    return WakeCost(
        transactions / WATCHED_CHANGES,
        storage / WATCHED_CHANGES * 1e3,
        postgres / WATCHED_CHANGES * 1e3,
        statistics.median(delays) * 1e3,
    )


async def measure_fan_out(fleet: Fleet, changes: int = 600) -> float:
    """Renews leases at the first server alone; returns the CPU milliseconds of each other server for one change."""
    others = fleet.processes[1:]
    leases = []
    for number in range(CONCURRENCY):
        await fleet.create(number)
        leases.append(await fleet.claim())
    first = Fleet(fleet.control, [], fleet.stubs[:1])
    before = [sum(process.cpu_times()[:2]) for process in others]
    for number in range(changes // CONCURRENCY):
        await asyncio.gather(*(first.renew(lease, number * CONCURRENCY / changes) for lease in leases))
    used = [sum(process.cpu_times()[:2]) - past for process, past in zip(others, before, strict=True)]
    for lease in leases:
        await fleet.complete(lease)
    return statistics.mean(used) / (changes // CONCURRENCY * CONCURRENCY) * 1e3


async def measure_notify(dsn: str, listeners: int, *, notifies: bool) -> float:
    """Returns the durable commits a second of 8 writers at SQL level, each with one NOTIFY or none."""
    statement = f"SELECT pg_notify('{CHANNEL}', %s)" if notifies else "SELECT length(%s)"
    payload = "x" * 150  # As long as a change's.
    async with AsyncExitStack() as stack:

        async def open_connection(*, autocommit: bool) -> psycopg.AsyncConnection[Any]:
            connection = await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit)
            return await stack.enter_async_context(connection)

        async def listen() -> None:
            connection = await open_connection(autocommit=True)
            await connection.execute(f"LISTEN {CHANNEL}")
            async for _ in connection.notifies():
                pass

        async def write(connection: psycopg.AsyncConnection[Any], number: int) -> None:
            for _ in range(NOTIFY_COMMITS // NOTIFY_WRITERS):
                async with connection.transaction():
                    await connection.execute(
                        "INSERT INTO notify_cost VALUES (%s, 0) ON CONFLICT (id) DO UPDATE SET n = notify_cost.n + 1",
                        (number,),
                    )
                    await connection.execute(statement, (payload,))

        setup = await open_connection(autocommit=True)
        await setup.execute("CREATE TABLE IF NOT EXISTS notify_cost (id INT PRIMARY KEY, n INT)")
        tasks = [asyncio.create_task(listen()) for _ in range(listeners)]
        writers = [await open_connection(autocommit=True) for _ in range(NOTIFY_WRITERS)]
        started_at = time.perf_counter()
        await asyncio.gather(*(write(connection, number) for number, connection in enumerate(writers)))
        seconds = time.perf_counter() - started_at
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return NOTIFY_COMMITS / seconds
