"""Measures storage with 1,000, 100,000 and 1,000,000 generations: `make bench-storage`.

    python -m benchmarks.storage [--rows 1000,100000,1000000] [--databases sqlite,postgres] [--jobs 2000]

Each figure is the median of many sequential calls, first through the library and then by gRPC to a server process. The
databases of the different sizes take turns call by call, so that a busy machine slows all of them alike and their
ratios hold. Every write is a transaction of its own and durable when it returns. The space of a generation includes its
prompt and its counts: it is what all generations after the first add, divided by their number. The databases are in
TMPDIR; for Postgres, a real server is started. At the end, 32 workers claim `--jobs` jobs through one server and
through three, and claim and complete as many; `--rows ""` measures only that. Prints Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from sqlalchemy import text

from benchmarks.storage_clients import PROMPT, Client, LibraryClient, RpcClient
from benchmarks.storage_rows import MODELS, Rows, load
from dgx_music.channel import connect
from dgx_music.storage.v1.storage_pb2_grpc import StorageServiceStub
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.sqlite import journal_mode, sqlite3
from storage_service.domain.creation import MAX_BATCH_SIZE, NewGeneration, create_all
from tests.support.postgres import postgres_server, url_of
from tests.support.storage_servers import storage_server, work_off

WRITE_COUNT = 100
GET_COUNT = 200
PAGE_COUNT = 25
WORKER_COUNT = 32

T = TypeVar("T")

LIMITS = {
    "insert": "≤ 1 ms at 1,000",
    "get": "≤ 0.5 ms at 1,000; ≤ 2×",
    "list one state, 1,000 rows": "≤ 10 ms at 1,000",
    "list one state, page of 50": "≤ 2×",
    "claim": "≤ 2×",
    "complete": "≤ 2×",
    "statistics": "≤ 5 ms at 1,000; ≤ 100 ms at 1,000,000",
}
"""The operations that are measured, and how long each may take through the library."""


Times = dict[tuple[str, int], list[float]]
"""Seconds of each call, by operation and number of rows."""


async def measure(clients: dict[int, Client], ids: dict[int, list[str]]) -> Times:
    """Measures every operation. `clients` and `ids` are by number of rows; the sizes take turns."""
    times: Times = defaultdict(list)

    async def timed(operation: str, size: int, call: Awaitable[T]) -> T:
        started_at = time.perf_counter()
        result = await call
        times[operation, size].append(time.perf_counter() - started_at)
        return result

    for number in range(WRITE_COUNT):
        for size, client in clients.items():
            await timed("insert", size, client.insert(number))
    for number in range(GET_COUNT):
        for size, client in clients.items():
            await timed("get", size, client.get(ids[size][number]))
    for _ in range(PAGE_COUNT):
        for size, client in clients.items():
            await timed("list one state, page of 50", size, client.list_completed(50))
            await timed("statistics", size, client.statistics())
            await timed("list one state, 1,000 rows", size, client.list_completed(1000))
    for _ in range(WRITE_COUNT):
        for size, client in clients.items():
            lease = await timed("claim", size, client.claim())
            await timed("complete", size, client.complete(lease))
    return times


async def measure_rpcs(urls: dict[int, str], ids: dict[int, list[str]]) -> Times:
    """Measures the same by gRPC, through one server per size."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        clients: dict[int, Client] = {}
        for size, url in urls.items():
            address = f"unix:{folder}/{size}.sock"
            await stack.enter_async_context(storage_server(url, address))
            clients[size] = RpcClient(StorageServiceStub(await stack.enter_async_context(connect(address))))
        return await measure(clients, ids)


def used_bytes(database: Database) -> int:
    """Returns the size of the file, or on Postgres of the tables with their indexes."""
    with database.read() as session:
        if database.is_sqlite:
            return (session.scalar(text("PRAGMA page_count")) or 0) * (session.scalar(text("PRAGMA page_size")) or 0)
        relations = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = "
        return int(session.scalar(text(f"{relations} 'public'::regnamespace")) or 0)


def fill_database(url: str, size: int) -> tuple[Database, list[str], float]:
    """Returns a database with `size` generations, the ids of some, and the bytes per generation after the first.

    The first one is left out because it allocates the first page of every table and index.
    """
    database, rows = Database(url), Rows()
    schema.ensure(database)
    sizes_bytes = []
    for count in (1, size - 1):
        load(database, rows, count)
        if not database.is_sqlite:
            with database.outside_transactions() as connection:
                connection.execute(text("VACUUM ANALYZE"))  # As autovacuum does sooner or later.
        sizes_bytes.append(used_bytes(database))
    return database, rows.sample(GET_COUNT), (sizes_bytes[1] - sizes_bytes[0]) / (size - 1)


def build_job(number: int) -> NewGeneration:
    """Builds one of the jobs for the workers."""
    return NewGeneration(f"{PROMPT}, {number % 50}", MODELS[number % len(MODELS)], 16.0, 32000, 2)


async def measure_claims_per_second(url: str, servers: int, jobs: int, *, completes: bool) -> tuple[float, float]:
    """Measures how many jobs per second 32 workers claim, and complete, through this number of servers; and for each
    the CPU time of the servers in milliseconds, which depends less on what else the machine does."""
    database = Database(url)
    schema.ensure(database)
    for start in range(0, jobs, MAX_BATCH_SIZE):
        with database.write() as session:
            create_all(session, [build_job(number) for number in range(start, min(start + MAX_BATCH_SIZE, jobs))])
    database.dispose()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        addresses = [f"unix:{folder}/{number}.sock" for number in range(servers)]
        processes = [await stack.enter_async_context(storage_server(url, address)) for address in addresses]
        seconds = sum(cpu_seconds(process.pid) for process in processes)
        worked = await work_off(addresses, WORKER_COUNT, MODELS, completes=completes)
        seconds = sum(cpu_seconds(process.pid) for process in processes) - seconds
    assert not completes or sorted(worked.completed) == sorted(set(worked.claimed))
    assert len(worked.claimed) == jobs
    return worked.claims_per_second, seconds / jobs * 1000


def cpu_seconds(process_id: int) -> float:
    """Returns the CPU time that a process has taken."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def databases(kinds: list[str], folder: Path) -> Iterator[Callable[[str, str], str]]:
    """Yields a function that creates an empty database, `create(kind, name)`, and returns its URL."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres_server(durable=True)) if "postgres" in kinds else None

        def create(kind: str, name: str) -> str:
            if kind == "sqlite" or server is None:
                return f"sqlite:///{folder}/{name}.db"
            server.execute(f"CREATE DATABASE {name}")
            return url_of(server, name)

        yield create


def report_growth(kind: str, urls: dict[int, str]) -> None:
    """Measures one kind of database at each size and prints the tables."""
    opened = {size: fill_database(url, size) for size, url in urls.items()}
    ids = {size: some for size, (_, some, _) in opened.items()}
    libraries: dict[int, Client] = {size: LibraryClient(database) for size, (database, _, _) in opened.items()}
    by_interface = {"library": asyncio.run(measure(libraries, ids))}
    for database, _, _ in opened.values():
        database.dispose()
    by_interface["gRPC"] = asyncio.run(measure_rpcs(urls, ids))
    sizes = sorted(urls)
    head = f"{' | '.join(f'{size:,}' for size in sizes)} | {sizes[-1]:,} / {sizes[0]:,}"
    for interface, times in by_interface.items():
        print(f"\n| {kind}, {interface}: ms | {head} | Limit |\n| --- {'| --- ' * len(sizes)}| --- | --- |")
        for operation, limit in LIMITS.items():
            shown_limit = limit if interface == "library" else ""
            medians = [statistics.median(times[operation, size]) * 1000 for size in sizes]
            cells = " | ".join(f"{milliseconds:.2f}" for milliseconds in medians)
            print(f"| {operation} | {cells} | {medians[-1] / medians[0]:.2f}× | {shown_limit} |")
    cells = " | ".join(f"{opened[size][2]:.0f}" for size in sizes)
    print(f"| bytes per generation after the first | {cells} | | ≤ 1,024 |")


def print_machine(folder: Path, kinds: list[str]) -> None:
    """Prints the hardware and how the databases make a commit durable."""
    processor = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    syncs = []
    with (folder / "probe").open("wb", buffering=0) as probe:
        for _ in range(100):
            probe.write(bytes(4096))
            started_at = time.perf_counter()
            os.fdatasync(probe.fileno())
            syncs.append(time.perf_counter() - started_at)
    print(
        f"{os.cpu_count()} cores ({processor.partition(':')[2].strip()}), {platform.machine()}, Python "
        f"{platform.python_version()}, load average {os.getloadavg()[0]:.1f}; fdatasync of 4 KiB appended: "
        f"{statistics.median(syncs) * 1000:.2f} ms."
    )
    if "sqlite" in kinds:
        mode = journal_mode(sqlite3.sqlite_version_info, folder)
        print(f"SQLite {sqlite3.sqlite_version}: journal_mode={mode}, synchronous=FULL, one durable commit per write.")
    if "postgres" in kinds:
        print("Postgres: fsync=on, synchronous_commit=on, otherwise defaults, through a Unix socket.")


def main() -> None:
    """Measures everything and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000,100000,1000000")
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--jobs", type=int, default=2000, help="jobs for the 32 workers; 0 skips that part")
    arguments = parser.parse_args()
    kinds, sizes = arguments.databases.split(","), sorted(map(int, filter(None, arguments.rows.split(","))))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print_machine(folder, kinds)
        with databases(kinds, folder) as create:
            for kind in kinds if sizes else ():
                report_growth(kind, {size: create(kind, f"rows_{size}") for size in sizes})
            if not arguments.jobs:
                return
            print(f"\n| {WORKER_COUNT} workers, {arguments.jobs:,} jobs | claimed a second | and completed |")
            print("| --- | --- | --- |")
            for kind, servers in (("postgres", 3), ("postgres", 1), ("sqlite", 1)):
                if kind in kinds:
                    cells = []
                    for completes in (False, True):
                        url = create(kind, f"jobs_{servers}_{completes}".lower())
                        measuring = measure_claims_per_second(url, servers, arguments.jobs, completes=completes)
                        rate, milliseconds = asyncio.run(measuring)
                        cells.append(f"{rate:.0f} ({milliseconds:.2f} ms of CPU each)")
                    name = f"{kind}, {servers} storage server{'s' * (servers > 1)}"
                    print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
