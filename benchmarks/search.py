"""Measures the search for text in prompts, and what its index costs: `make bench-search`.

    python -m benchmarks.search [--rows 1000000] [--databases sqlite,postgres] [--explain]

The rows are those of the storage benchmark, with three differences: "vinyl" is in all prompts of the older half and in
none of the newer, one prompt of the older half ("the daily jingle") has a tenth of its rows, and 東京の夜 is in one row
of 100,000. Each figure is the median of 9 pages of 50 rows through the library, each in a session of its own, and the
least of them, which other work on the machine changes least. `--explain` prints each plan. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from sqlalchemy import event, func, select, text
from sqlalchemy.orm import Session

from benchmarks.storage import databases, print_machine, used_bytes
from benchmarks.storage_rows import Rows, load
from service_runtime.rpc.paging import Page
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from storage_service.domain.listing import GenerationFilter, PromptOrder, list_generations, list_prompts
from storage_service.states import GenerationStatus

REPEATS = 9
INSERTS = 200

TEXTS = {
    "a common word": "lo-fi",
    "common trigrams, in all rows": "BPM in",
    "common trigrams, in few rows": "with soft strings and bells, take 1",
    "medium": "9999",
    "rare": "take 9999",
    "no hit": "take 12345678",
    "one character, in all": "a",
    "one character, no hit": "ж",
    "two characters, in all": "an",
    "two characters, no hit": "zq",
    "two characters, Japanese": "京の",
    "only in the older half": "vinyl",
    "one prompt of a tenth of the older half": "daily jingle",
}


class SearchRows(Rows):
    """The rows, with texts that a search may find hard."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total = total

    def _prompt(self) -> str:
        number, is_old = len(self._ids), len(self._ids) <= self._total // 2
        special = "the daily jingle" if is_old and number % 10 == 0 else "東京の夜" if number % 100_000 == 7 else ""
        if special:
            self._uses[special] = self._uses.get(special, 0) + 1
            return special
        if number == self._total // 2 + 1:
            self._prompts = []
        before = len(self._prompts)
        prompt = super()._prompt()
        if is_old and len(self._prompts) > before:
            self._prompts[-1] = prompt + " on vinyl"
            self._uses[prompt + " on vinyl"] = self._uses.pop(prompt)
            return prompt + " on vinyl"
        return prompt


Search = Callable[[Session, str], Any]


def searches(database: Database) -> dict[str, Search]:
    """Returns the searches by name: of generations, alone and with other filters, and of prompts."""
    with database.read() as session:
        newest = session.scalar(select(func.max(Generation.created_at)))
    assert newest is not None
    early = newest - timedelta(days=200)

    def generations(**chosen: Any) -> Search:
        return lambda session, needle: list_generations(
            session, GenerationFilter(prompt_contains=needle, **chosen), Page()
        )

    return {
        "generations": generations(),
        "failed": generations(statuses=[GenerationStatus.FAILED]),
        "pending or processing": generations(statuses=[GenerationStatus.PENDING, GenerationStatus.PROCESSING]),
        "of a model and a client": generations(model_name="sketch", client="client-3"),
        "before 200 days ago": generations(created_before=early),
        "prompts by use": lambda session, needle: list_prompts(session, PromptOrder.MOST_USED, needle, Page()),
        "recent prompts": lambda session, needle: list_prompts(session, PromptOrder.MOST_RECENT, needle, Page()),
    }


def report_searches(kind: str, database: Database, *, explain: bool) -> None:
    """Measures every search for every text and prints a table."""
    by_name = searches(database)
    print(f"\n| {kind}: ms, least | {' | '.join(by_name)} |\n| --- |{' ---: |' * len(by_name)}")
    for meaning, needle in TEXTS.items():
        cells = []
        for search in by_name.values():
            seconds = []
            for _ in range(REPEATS):
                with database.read() as session:
                    session.connection()
                    started_at = time.perf_counter()
                    search(session, needle)
                    seconds.append(time.perf_counter() - started_at)
            cells.append(f"{statistics.median(seconds) * 1000:.0f}, {min(seconds) * 1000:.0f}")
        print(f"| {meaning}: {needle} | {' | '.join(cells)} |", flush=True)
        if explain:
            for name, search in by_name.items():
                print_plans(f"{name}: {needle}", database, search, needle)


def print_plans(title: str, database: Database, search: Search, needle: str) -> None:
    """Prints how the database runs the statements of a search."""
    sent: list[tuple[str, Any]] = []

    def catch(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        sent.append((statement, parameters))

    with database.read() as session:
        event.listen(database.engine, "before_cursor_execute", catch)
        search(session, needle)
        event.remove(database.engine, "before_cursor_execute", catch)
        prefix = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN (ANALYZE, COSTS OFF)"
        for statement, parameters in sent:
            rows = session.connection().exec_driver_sql(f"{prefix} {statement}", parameters).all()
            print(f"\n{title}\n" + "\n".join(f"    {row[-1]}" for row in rows))


def measure_inserts(database: Database, name: str) -> tuple[float, float]:
    """Returns the median ms of a durable insert with a new prompt, and with one that was used before."""
    by_kind = []
    for kind in ("new", "known"):
        seconds = []
        for number in range(INSERTS):
            words = f"a calm lo-fi hip hop beat at 90 BPM with a warm piano and soft strings, {name} {number}"
            new = NewGeneration(words if kind == "new" else f"known {name}", "sketch", 16.0, 32000, 2)
            started_at = time.perf_counter()
            with database.write() as session:
                creation.create(session, new)
            seconds.append(time.perf_counter() - started_at)
        by_kind.append(statistics.median(seconds) * 1000)
    return by_kind[0], by_kind[1]


def report_costs(kind: str, url: str, rows: int) -> None:
    """Measures rows and inserts with the index and without, and how long it takes to create it."""
    migration = ScriptDirectory(str(schema.migrations_folder())).get_revision("0009").module
    with Database(url) as database:
        costs = [(used_bytes(database) / rows, *measure_inserts(database, "with"))]
        with database.connect_for_writing() as connection:
            migration._drop(connection)
        with database.outside_transactions() as connection:
            connection.execute(text("VACUUM"))
        costs.append((used_bytes(database) / rows, *measure_inserts(database, "without")))
    schema.downgrade(url, "0008")
    started_at = time.perf_counter()
    schema.upgrade(url, "0009")
    seconds = time.perf_counter() - started_at
    print(f"\n| {kind} | with the index | without |\n| --- | ---: | ---: |")
    for row, (with_it, without) in zip(
        ("bytes per generation", "insert with a new prompt, ms", "insert with a known prompt, ms"),
        zip(*costs, strict=True),
        strict=True,
    ):
        print(f"| {row} | {with_it:.{0 if 'bytes' in row else 2}f} | {without:.{0 if 'bytes' in row else 2}f} |")
    print(f"\nMigration of {rows:,} rows to 0009: {seconds:.1f} s; load average {os.getloadavg()[0]:.1f}.", flush=True)


def main() -> None:
    """Measures everything and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--explain", action="store_true")
    arguments = parser.parse_args()
    kinds = arguments.databases.split(",")
    with tempfile.TemporaryDirectory() as name:
        print_machine(Path(name), kinds)
        with databases(kinds, Path(name)) as create:
            for kind in kinds:
                url = create(kind, "searched")
                with Database(url) as database:
                    schema.ensure(database)
                    load(database, SearchRows(arguments.rows), arguments.rows)
                    if not database.is_sqlite:
                        with database.outside_transactions() as connection:
                            connection.execute(text("VACUUM ANALYZE"))  # As autovacuum does sooner or later.
                    report_searches(f"{kind}, {arguments.rows:,} rows", database, explain=arguments.explain)
                report_costs(kind, url, arguments.rows)


if __name__ == "__main__":
    main()
