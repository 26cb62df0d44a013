"""How long each migration takes on so many rows, and how long calls wait that read or write meanwhile.

    python -m benchmarks.migrations [ROWS]

On SQLite and on a Postgres server of its own, from the first revision on. Beside each migration one process reads a
row over and over, another writes one, each with a pause of 2 ms; told is the longest that either waited, and how often
it was refused: after 5 s, with UNAVAILABLE.
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
"""Of reading and writing before the migration begins, and after it has ended."""


def call_on(what: str, url: str) -> None:
    """Reads or writes until something comes on standard input; prints how it went."""
    database, worst, refused, calls = Database(url), 0.0, 0, 0
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], PAUSE_SECONDS)[0]:
        calls += 1
        began = time.perf_counter()
        try:
            if what == "read":
                with database.read() as session:
                    session.execute(text("SELECT id FROM generations LIMIT 1")).all()
            else:
                with database.write() as session:  # Another value each time: SQLite would not write the same again.
                    session.execute(text("UPDATE prompts SET used_count = used_count + 1 WHERE text = 'prompt 0'"))
        except Unavailable:
            refused += 1
        worst = max(worst, time.perf_counter() - began)
    database.dispose()
    print(f"{calls} {what}s, the longest {worst * 1000:.0f} ms, {refused} refused")


def measure(name: str, url: str, rows: int) -> None:
    """Migrates step by step."""
    schema.upgrade(url, schema.REVISIONS[0])
    rows = insert_old_rows(url, copies=-(-rows // KINDS))
    for revision in schema.REVISIONS[1:]:
        callers = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.migrations", what, url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for what in ("read", "write")
        ]
        for caller in callers:
            assert caller.stdout is not None
            caller.stdout.readline()
        time.sleep(LEAD_SECONDS)
        began = time.perf_counter()
        schema.upgrade(url, revision)
        seconds = time.perf_counter() - began
        time.sleep(LEAD_SECONDS)
        told = "; ".join(caller.communicate("end\n")[0].strip() for caller in callers)
        print(f"{name}, {rows} rows, to {revision}: {seconds:.2f} s; {told}", flush=True)


def main() -> None:
    if sys.argv[1:2] in (["read"], ["write"]):
        call_on(*sys.argv[1:])
        return
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", f"sqlite:///{Path(folder, 'migrated.db')}", rows)
    with postgres_server(durable=True) as connection:
        connection.execute("CREATE DATABASE migrated")
        measure("Postgres", url_of(connection, "migrated"), rows)


if __name__ == "__main__":
    main()
