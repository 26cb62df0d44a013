"""Measures how long each migration takes, and how long concurrent reads and writes wait.

    python -m benchmarks.migrations [ROWS]

Migrates ROWS rows (default: 100,000) from the first revision on, on SQLite and on a Postgres server of its own. During
each migration one process repeatedly reads a row and another one writes a row, with pauses of 2 ms. Prints the longest
time that each waited and how many of its calls failed, with UNAVAILABLE after 5 s.
"""

from __future__ import annotations

import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy import text

from dgx_music.errors import Unavailable
from storage_service.db import schema
from storage_service.db.database import Database
from tests.support.old_rows import KINDS, insert_old_rows
from tests.support.postgres import postgres_server, url_of

PAUSE_SECONDS = 0.002
LEAD_SECONDS = 0.5
"""How long to read and write before the migration starts and after it ends."""


def call_repeatedly(operation: str, url: str) -> None:
    """Reads or writes until standard input has a line, then prints the number of calls and the longest wait."""
    database, longest_seconds, failures, calls = Database(url), 0.0, 0, 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        calls += 1
        started_at = time.perf_counter()
        try:
            if operation == "read":
                with database.read() as session:
                    session.execute(text("SELECT id FROM generations LIMIT 1")).all()
            else:
                with database.write() as session:  # SQLite would not write an unchanged value.
                    session.execute(text("UPDATE prompts SET used_count = used_count + 1 WHERE text = 'prompt 0'"))
        except Unavailable:
            failures += 1
        longest_seconds = max(longest_seconds, time.perf_counter() - started_at)
    database.dispose()
    print(f"{calls} {operation}s, the longest {longest_seconds * 1000:.0f} ms, {failures} failed")


def measure(name: str, url: str, rows: int) -> None:
    """Migrates the database revision by revision and prints each step."""
    schema.upgrade(url, schema.REVISIONS[0])
    rows = insert_old_rows(url, copies=-(-rows // KINDS))
    for revision in schema.REVISIONS[1:]:
        callers = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.migrations", operation, url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for operation in ("read", "write")
        ]
        for caller in callers:
            assert caller.stdout is not None
            caller.stdout.readline()
        time.sleep(LEAD_SECONDS)
        started_at = time.perf_counter()
        schema.upgrade(url, revision)
        seconds = time.perf_counter() - started_at
        time.sleep(LEAD_SECONDS)
        reports = "; ".join(caller.communicate("end\n")[0].strip() for caller in callers)
        print(f"{name}, {rows} rows, to {revision}: {seconds:.2f} s; {reports}", flush=True)


def main() -> None:
    if sys.argv[1:2] in (["read"], ["write"]):
        call_repeatedly(*sys.argv[1:])
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", f"sqlite:///{Path(folder, 'migrated.db')}", rows)
    with postgres_server(durable=True) as connection:
        connection.execute("CREATE DATABASE migrated")
        measure("Postgres", url_of(connection, "migrated"), rows)


if __name__ == "__main__":
    main()
