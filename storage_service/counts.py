"""The tables that statistics are read from: sums over `generations` and `prompts`, kept by triggers of the database.

A row of `generations` counts in one cell of `generation_counts`, named by its status, model and the day it finished,
and a completed one in one cell of `generation_times` too; an insert adds it there, a delete takes it away, an update
moves it. The triggers (migration 0003) run inside the statement that changes the row, whoever makes it, so that what
is read here can't differ from what counting all rows would give; `statistics.differences` counts them to show it.

A cell that every transaction adds to would let them wait for one another, or deadlock. So on Postgres each cell has
shards, and a transaction adds to the first shard whose advisory lock it gets without waiting; there are as many as
there were transactions at once. SQLite has one writer, and shard 0 alone.
"""

from __future__ import annotations

from datetime import date

from sqlalchemy import BigInteger, Date, Double, Text
from sqlalchemy.orm import Mapped, mapped_column

from storage_service.base import Base

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
