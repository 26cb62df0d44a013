"""The tables that statistics are read from: sums over `generations` and `prompts`, kept by triggers of the database.

A row of `generations` counts in one cell of `generation_counts`, named by its status, model and the day it finished,
and a completed one in one cell of `generation_times` too; an insert adds it there, a delete takes it away, an update
moves it. The triggers (migration 0003) run inside the statement that changes the row, whoever makes it, so that what
is read here can't differ from what counting all rows would give; `differences` counts them to show it.

A cell that every transaction adds to would let them wait for one another, or deadlock. So on Postgres each cell has
shards, and a transaction adds to the first shard whose advisory lock it gets without waiting; there are as many as
there were transactions at once. SQLite has one writer, and shard 0 alone.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import BigInteger, Date, Double, Text, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from storage_service.db.declarative_base import Base

NOT_FINISHED = date(1970, 1, 1)
"""The day of generations that have not finished."""


class GenerationCount(Base):
    """What the generations of one status and model that finished on one day come to."""

    __tablename__ = "generation_counts"

    status: Mapped[str] = mapped_column(Text, primary_key=True)
    model_name: Mapped[str] = mapped_column(Text, primary_key=True)
    finished_on: Mapped[date] = mapped_column(Date, primary_key=True)
    """The UTC day of completed_at; NOT_FINISHED where there is none."""
    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    generations: Mapped[int] = mapped_column(BigInteger)
    """Only the sum over all shards is a count: a shard may lose what another one gained."""
    audio_ms: Mapped[int] = mapped_column(BigInteger)
    """Of duration_seconds, each rounded to 1 ms, so that adding and taking away leave nothing."""
    file_bytes: Mapped[int] = mapped_column(BigInteger)
    work_ms: Mapped[int] = mapped_column(BigInteger)
    """Of generation_time_seconds, each rounded to 1 ms."""


class GenerationTime(Base):
    """How many completed generations of a model took about so long."""

    __tablename__ = "generation_times"

    model_name: Mapped[str] = mapped_column(Text, primary_key=True)
    seconds: Mapped[float] = mapped_column(Double, primary_key=True, autoincrement=False)
    """generation_time_seconds to two significant digits, which is within 5 %."""
    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    generations: Mapped[int] = mapped_column(BigInteger)


class PromptCount(Base):
    """How many distinct prompts there are."""

    __tablename__ = "prompt_counts"

    shard: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    prompts: Mapped[int] = mapped_column(BigInteger)


_SQLITE_DAY = "coalesce(substr(completed_at, 1, 10), '1970-01-01')"
_POSTGRES_DAY = "coalesce(CAST(completed_at AT TIME ZONE 'UTC' AS DATE), DATE '1970-01-01')"
_SQLITE_MS = "CAST(round(coalesce({seconds}, 0) * 1000) AS INTEGER)"
_POSTGRES_MS = "CAST(round(CAST(coalesce({seconds}, 0) * 1000 AS NUMERIC)) AS BIGINT)"
_SQLITE_DIGITS = "CAST(printf('%.1e', generation_time_seconds) AS REAL)"
_POSTGRES_DIGITS = "CAST(to_char(generation_time_seconds, '9.9EEEE') AS DOUBLE PRECISION)"


def differences(session: Session) -> list[str]:
    """What the counts have that counting every row does not give, cell by cell; nothing unless somebody meddled."""
    on_sqlite = session.get_bind().dialect.name == "sqlite"
    day, ms = (_SQLITE_DAY, _SQLITE_MS) if on_sqlite else (_POSTGRES_DAY, _POSTGRES_MS)
    digits = _SQLITE_DIGITS if on_sqlite else _POSTGRES_DIGITS
    told = []
    for what, kept, counted in (
        (
            "generations that are {}, of model {}, finished on {}: number, ms of audio, bytes, ms of work",
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
        keys = what.count("{}")
        found: list[dict[tuple[object, ...], tuple[int, ...]]] = []
        for query in (kept, counted):
            rows = session.execute(text(f"SELECT {query}"))
            found.append({tuple(row[:keys]): tuple(int(value or 0) for value in row[keys:]) for row in rows})
        zeros = (0,) * len(next(iter([*found[0].values(), *found[1].values()]), ()))
        for key in sorted(found[0].keys() | found[1].keys(), key=str):
            is_kept, is_there = found[0].get(key, zeros), found[1].get(key, zeros)
            if is_kept != is_there:
                told.append(f"{what.format(*key)}: counts say {is_kept}, the rows {is_there}")
    return told
