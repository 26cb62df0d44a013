"""Measures what one operation costs, for `benchmarks.fleet`, which simulates many: `make bench-fleet`.

    python -m benchmarks.fleet_costs [--rows 1000,1000000] [--servers 1,3] [--only sql,servers,notify,objects,gateway]
        [--json PATH]

CPU time is that of the processes, so that it says more than the time of a call on a busy machine. Postgres is real and
every commit durable; the S3 server is a real SeaweedFS. Prints Markdown. `--json` writes the costs for
`python -m benchmarks.fleet --costs PATH`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.fleet_cost_gateway import measure_gateway
from benchmarks.fleet_cost_objects import measure_objects
from benchmarks.fleet_cost_servers import (
    CONCURRENCY,
    NOTIFY_WRITERS,
    OperationCost,
    WakeCost,
    fleet,
    measure_fan_out,
    measure_herd,
    measure_notify,
    measure_operations,
    measure_watchers,
)
from benchmarks.fleet_cost_sql import measure_sql
from benchmarks.fleet_model import MEASURED, OperationCosts
from benchmarks.fleet_model import OperationCost as ModelCost
from benchmarks.fleet_tables import print_table
from benchmarks.storage_rows import Rows, load
from storage_service.db import schema
from storage_service.db.database import Database
from tests.support.postgres import postgres_server, scratch_database
from tests.support.s3_server import s3_server

HERDS, WATCHERS, LISTENERS = (1, 30, 300), (1, 30), (0, 1, 3, 10, 30)
PARTS = "sql", "servers", "notify", "objects", "gateway"


@contextmanager
def new_database(control: psycopg.Connection[Any], rows: int = 0) -> Iterator[str]:
    """Yields the URL of a database with so many generations, none of them pending or with an expired lease."""
    with scratch_database(control) as url:
        with Database(url) as database:
            schema.ensure(database)
            if rows:
                load(database, Rows(), rows)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DELETE FROM generations WHERE status IN ('pending', 'processing')")
            connection.execute("VACUUM ANALYZE")  # As autovacuum does sooner or later.
        yield url


def report_sql(control: psycopg.Connection[Any], sizes: Iterable[int]) -> None:
    """Prints the costs in SQL at each number of rows."""
    measured = {}
    for rows in sizes:
        with new_database(control, rows) as url, Database(url) as database:
            measured[rows] = measure_sql(database, control)
    heads = [f"{what}, {rows:,} rows" for rows in measured for what in ("ms", "its CPU", "Postgres's CPU", "WAL, kB")]
    names = next(iter(measured.values()))
    print_table(
        ("In SQL, ms", "round trips", *heads),
        (
            (
                name,
                cost.round_trips,
                *(
                    value
                    for of_size in measured.values()
                    for value in (
                        of_size[name].milliseconds,
                        of_size[name].client_cpu_milliseconds,
                        of_size[name].postgres_cpu_milliseconds,
                        of_size[name].wal_bytes / 1e3,
                    )
                ),
            )
            for name, cost in names.items()
        ),
    )


async def report_servers(
    control: psycopg.Connection[Any], url: str, servers: int
) -> tuple[dict[str, OperationCost], dict[int, WakeCost], float]:
    """Prints the costs through so many storage servers, and returns them."""
    async with fleet(url, servers, control) as running:
        operations = await measure_operations(running)
        herds = {workers: await measure_herd(running, workers) for workers in HERDS}
        watched = {watchers: await measure_watchers(running, watchers) for watchers in WATCHERS}
        received = await measure_fan_out(running) if servers > 1 else 0.0
    plural = f"{servers} storage server{'s' * (servers > 1)}"
    print_table(
        (f"{plural}, {CONCURRENCY} at a time", "a second", "storage's CPU, ms", "Postgres's CPU, ms", "transactions"),
        (
            (name, cost.per_second, cost.storage_cpu_milliseconds, cost.postgres_cpu_milliseconds, cost.transactions)
            for name, cost in operations.items()
        ),
    )
    waiting = [(f"created while {count} workers wait", cost) for count, cost in herds.items()]
    waiting += [(f"renewed while {count} watch", cost) for count, cost in watched.items()]
    print_table(
        (plural, "transactions", "storage's CPU, ms", "Postgres's CPU, ms", "until claimed or told, ms"),
        (
            (
                name,
                cost.transactions,
                cost.storage_cpu_milliseconds,
                cost.postgres_cpu_milliseconds,
                cost.delay_milliseconds,
            )
            for name, cost in waiting
        ),
    )
    if servers > 1:
        print(f"\nA change that another server announces costs a server {received:.3f} ms of CPU.")
    return operations, watched, received


def report_notify(url: str) -> None:
    """Prints the commits a second with and without NOTIFY: why servers announce changes after their commit."""
    rows = [
        (
            listeners,
            asyncio.run(measure_notify(url, listeners, notifies=False)),
            asyncio.run(measure_notify(url, listeners, notifies=True)),
        )
        for listeners in LISTENERS
    ]
    head = f"Listeners, {NOTIFY_WRITERS} writers: durable commits a second"
    print_table((head, "without NOTIFY", "with one each"), rows)


def report_objects() -> float:
    """Prints the costs of requests to S3; returns the seconds of a PUT of 30 s of audio."""
    with s3_server() as server, server.bucket() as bucket:
        costs = measure_objects(server, bucket)
    print_table(
        ("S3 (SeaweedFS), one at a time", "ms", "client's CPU, ms", "server's CPU, ms"),
        (
            (name, cost.milliseconds, cost.client_cpu_milliseconds, cost.server_cpu_milliseconds)
            for name, cost in costs.items()
        ),
    )
    return next(cost.milliseconds for name, cost in costs.items() if "30 s" in name) / 1e3


def report_gateway() -> dict[str, dict[str, float]]:
    """Prints and returns what calls and listeners cost each service."""
    with tempfile.TemporaryDirectory() as folder:
        used = asyncio.run(measure_gateway(Path(folder)))
    print_table(
        ("Through the gateway: CPU, ms", "gateway", "storage", "export"),
        ((name, of["gateway"], of["storage"], of["export"]) for name, of in used.items()),
    )
    return used


def with_operations(
    costs: OperationCosts, operations: dict[str, OperationCost], watched: dict[int, WakeCost], received: float
) -> OperationCosts:
    """Returns the simulation's costs with what was measured. Those of one server contain no changes by others."""
    if received:
        return replace(costs, received_seconds=received / 1e3)

    def convert(cost: OperationCost) -> ModelCost:
        return ModelCost(cost.storage_cpu_milliseconds / 1e3, cost.postgres_cpu_milliseconds / 1e3)

    few, many = WATCHERS
    each = ModelCost(
        (watched[many].storage_cpu_milliseconds - watched[few].storage_cpu_milliseconds) / (many - few) / 1e3,
        (watched[many].postgres_cpu_milliseconds - watched[few].postgres_cpu_milliseconds) / (many - few) / 1e3,
    )
    return replace(
        costs,
        create=convert(operations["create"]),
        claim=convert(operations["claim"]),
        renew=convert(operations["renew"]),
        complete=convert(operations["complete"]),
        claim_in_vain=convert(operations["claim, none there"]),
        read=each,
    )


def main() -> None:
    """Measures what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000,1000000")
    parser.add_argument("--servers", default="1,3")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    parts, costs = options.only.split(","), MEASURED
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load average "
        f"{os.getloadavg()[0]:.1f}; Postgres with fsync and synchronous_commit."
    )
    with postgres_server(durable=True) as control:
        if "sql" in parts:
            report_sql(control, [int(rows) for rows in options.rows.split(",")])
        for servers in map(int, options.servers.split(",")):
            if "servers" in parts:
                with new_database(control) as url:
                    costs = with_operations(costs, *asyncio.run(report_servers(control, url, servers)))
        if "notify" in parts:
            with scratch_database(control) as url:
                report_notify(url)
    if "objects" in parts:
        costs = replace(costs, object_put_seconds=report_objects())
    if "gateway" in parts:
        used = report_gateway()
        listener = used["a listener, for a second of audio"]
        costs = replace(
            costs,
            gateway_seconds_per_stream_second=listener["gateway"] / 1e3,
            export_seconds_per_stream_second=listener["export"] / 1e3,
            gateway_call_seconds=used["GetGeneration"]["gateway"] / 1e3,
        )
    print(f"\nLoad average at the end {os.getloadavg()[0]:.1f}.")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(costs), indent=2) + "\n")


if __name__ == "__main__":
    main()
