"""The tables that statistics are read from: sums over `generations` and `prompts`, maintained by database triggers.

A row of `generations` is counted in one cell of `generation_counts`, identified by its status, its model and the day it
finished; a completed one is also counted in one cell of `generation_times`. An insert adds the row to its cells, a
delete subtracts it, and an update moves it. The triggers (migration 0003) run inside the statement that changes the
row, so the sums can't differ from what counting all rows would give; `find_count_mismatches` verifies that.

If every transaction added to the same cell, transactions would wait for one another, or deadlock. On Postgres each cell
therefore has shards, and a transaction adds to the first shard whose advisory lock it gets without waiting, so there
are as many shards as there were concurrent transactions. SQLite has one writer and only shard 0.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import BigInteger, Date, Double, Text, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from storage_service.db.declarative_base import Base

NOT_FINISHED = date(1970, 1, 1)
"""The day that stands for "not finished yet"."""


class GenerationCount(Base):
    """The sums over the generations of one status and model that finished on one day."""

    __tablename__ = "generation_counts"

    status: Mapped[str] = mapped_column(Text, primary_key=True)
    model_name: Mapped[str] = mapped_column(Text, primary_key=True)
    finished_on: Mapped[date] = mapped_column(Date, primary_key=True)
    """The UTC day of completed_at; NOT_FINISHED if it is NULL."""
    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    generations: Mapped[int] = mapped_column(BigInteger)
    """Only the sum over all shards is a count: a row added to one shard may be subtracted from another."""
    audio_ms: Mapped[int] = mapped_column(BigInteger)
    """The sum of duration_seconds, each rounded to 1 ms so that adding and subtracting cancel exactly."""
    file_bytes: Mapped[int] = mapped_column(BigInteger)
    work_ms: Mapped[int] = mapped_column(BigInteger)
    """The sum of generation_time_seconds, each rounded to 1 ms."""


class GenerationTime(Base):
    """The number of completed generations of a model that took about `seconds`: one bin of a histogram."""

    __tablename__ = "generation_times"

    model_name: Mapped[str] = mapped_column(Text, primary_key=True)
    seconds: Mapped[float] = mapped_column(Double, primary_key=True, autoincrement=False)
    """generation_time_seconds rounded to two significant digits, which is within 5 %."""
    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    generations: Mapped[int] = mapped_column(BigInteger)


class PromptCount(Base):
    """The number of distinct prompts."""

    __tablename__ = "prompt_counts"

    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    prompts: Mapped[int] = mapped_column(BigInteger)


_SQLITE_DAY = "coalesce(substr(completed_at, 1, 10), '1970-01-01')"
_POSTGRES_DAY = "coalesce(CAST(completed_at AT TIME ZONE 'UTC' AS DATE), DATE '1970-01-01')"
_SQLITE_MS = "CAST(round(coalesce({seconds}, 0) * 1000) AS INTEGER)"
_POSTGRES_MS = "CAST(round(CAST(coalesce({seconds}, 0) * 1000 AS NUMERIC)) AS BIGINT)"
_SQLITE_DIGITS = "CAST(printf('%.1e', generation_time_seconds) AS REAL)"
_POSTGRES_DIGITS = "CAST(to_char(generation_time_seconds, '9.9EEEE') AS DOUBLE PRECISION)"


def find_count_mismatches(session: Session) -> list[str]:
    """Returns descriptions of the cells that differ from counting the rows: none unless someone edited the counts."""
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    day, ms = (_SQLITE_DAY, _SQLITE_MS) if on_sqlite else (_POSTGRES_DAY, _POSTGRES_MS)
    digits = _SQLITE_DIGITS if on_sqlite else _POSTGRES_DIGITS
    mismatches = []
    for description, stored_query, counted_query in (
        (
            "generations in state {} of model {} finished on {} (number, ms of audio, bytes, ms of work)",
            "status, model_name, finished_on, sum(generations), sum(audio_ms), sum(file_bytes), sum(work_ms) "
            "FROM generation_counts GROUP BY status, model_name, finished_on",
            f"status, model_name, {day}, count(*), sum({ms.format(seconds='duration_seconds')}), "
            f"sum(coalesce(file_size_bytes, 0)), sum({ms.format(seconds='generation_time_seconds')}) "
            f"FROM generations GROUP BY status, model_name, {day}",
        ),
        (
            "completed generations of model {} that took about {} s",
            "model_name, seconds, sum(generations) FROM generation_times GROUP BY model_name, seconds",
            f"model_name, {digits}, count(*) FROM generations "
            f"WHERE status = 'completed' AND generation_time_seconds IS NOT NULL GROUP BY model_name, {digits}",
        ),
        ("prompts", "sum(prompts) FROM prompt_counts", "count(*) FROM prompts"),
    ):
        key_columns = description.count("{}")
        cells: list[dict[tuple[object, ...], tuple[int, ...]]] = []
        for query in (stored_query, counted_query):
            rows = session.execute(text(f"SELECT {query}"))
            cells.append(
                {tuple(row[:key_columns]): tuple(int(value or 0) for value in row[key_columns:]) for row in rows}
            )
        stored, counted = cells
        zeros = (0,) * len(next(iter([*stored.values(), *counted.values()]), ()))
        for key in sorted(stored.keys() | counted.keys(), key=str):
            in_counts, in_rows = stored.get(key, zeros), counted.get(key, zeros)
            if in_counts != in_rows:
                mismatches.append(f"{description.format(*key)}: the counts say {in_counts}, but the rows say {in_rows}")
    return mismatches
