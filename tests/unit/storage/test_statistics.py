"""Figures over all, and the counts they are read from: kept by the database whoever changes it."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, insert, select, text, update

from dgx_music.errors import InvalidArgument
from storage_service.db import counts
from storage_service.db.clock import later, now
from storage_service.db.counts import GenerationCount
from storage_service.db.database import Database
from storage_service.db.models import Generation, Prompt
from storage_service.domain import creation, leases, lifecycle, prompts
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.statistics import percentiles_of, statistics
from storage_service.states import GenerationStatus

New = Callable[..., NewGeneration]
Row = Callable[..., Generation]
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = GenerationStatus


def test_figures_of_all_and_of_each_model(database: Database, row_in: Row) -> None:
    with database.read() as session:
        empty = statistics(session)
    assert (empty.overall.total_generations, empty.total_prompts, empty.oldest_pending_seconds) == (0, 0, 0.0)
    assert (empty.overall.completed_audio_seconds, empty.overall.mean_generation_time_seconds) == (0, 0)
    assert empty.overall.percentiles == (0.0, 0.0, 0.0)
    assert empty.by_model == {}
    for status in GenerationStatus:
        row_in(status)
    row_in(COMPLETED, file_size_bytes=2**40, generation_time_seconds=1.0)
    row_in(COMPLETED, file_size_bytes=1, generation_time_seconds=2.0, model_name="other", duration_seconds=0.125)
    with database.read() as session:
        figures = statistics(session)
        assert counts.differences(session) == []
    overall = figures.overall
    assert overall.total_generations == 7
    assert overall.by_status == dict.fromkeys(GenerationStatus, 1) | {COMPLETED: 3}
    assert figures.total_prompts == 1
    assert overall.completed_audio_seconds == 8.125
    assert overall.completed_file_bytes == 2**40 + 1
    assert overall.mean_generation_time_seconds == 1.5
    assert overall.percentiles == [1.0, 2.0, 2.0]
    assert list(figures.by_model) == ["other", "sketch"]
    assert figures.by_model["other"].by_status == dict.fromkeys(GenerationStatus, 0) | {COMPLETED: 1}
    assert figures.by_model["other"].completed_audio_seconds == 0.125
    assert figures.by_model["sketch"].percentiles == [1.0, 1.0, 1.0]
    assert 0 < figures.oldest_pending_seconds < 60


def test_figures_of_the_last_days(database: Database, row_in: Row) -> None:
    day = 86400.0
    row_in(COMPLETED, completed_at=now(), file_size_bytes=5)
    row_in(COMPLETED, completed_at=later(-2 * day), duration_seconds=1.5)
    row_in(COMPLETED, completed_at=later(-9 * day))
    row_in(CANCELLED, completed_at=later(-2 * day))
    with database.read() as session:
        figures = statistics(session, days=3)
        today = session.scalars(select(now())).one().date()
        assert [one.date for one in figures.days] == [today - timedelta(days=ago) for ago in range(3)]
        assert [one.finished[COMPLETED] for one in figures.days] == [1, 0, 1]
        assert [one.finished[CANCELLED] for one in figures.days] == [0, 0, 1]
        assert [one.audio_seconds for one in figures.days] == [4.0, 0.0, 1.5]
        assert [one.file_bytes for one in figures.days] == [5, 0, 0]
        assert len(statistics(session).days) == 7
        assert len(statistics(session, days=366).days) == 366
        for days in (-1, 367):
            with pytest.raises(InvalidArgument) as raised:
                statistics(session, days=days)
            assert raised.value.field == "days"


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_are_within_five_percent_of_the_true_ones(database: Database, new: New, seed: int) -> None:
    drawn = random.Random(seed)
    times = [drawn.lognormvariate(2.0, 1.5) for _ in range(200)]
    with database.write() as session:
        row = creation.create(session, new())
        columns = {column.name: column for column in Generation.__table__.columns}
        values = dict(session.execute(select(*columns.values()).where(Generation.id == row.id)).mappings().one())
        rows = [
            {
                **values,
                "id": f"{n:08}-0000-4000-8000-000000000000",
                "status": COMPLETED,
                "generation_time_seconds": time,
            }
            for n, time in enumerate(times)
        ]
        session.execute(insert(Generation.__table__), rows)  # type: ignore[arg-type]
        found = statistics(session).overall
        assert counts.differences(session) == []
    ordered = sorted(times)
    for value, percent in zip(found.percentiles, (50, 90, 99), strict=True):
        assert value == pytest.approx(ordered[len(times) * percent // 100 - 1], rel=0.05)
    assert found.mean_generation_time_seconds == pytest.approx(sum(times) / len(times), abs=0.001)


def test_nearest_rank_percentiles() -> None:
    assert percentiles_of({}) == [0.0, 0.0, 0.0]
    assert percentiles_of({3.0: 1}) == [3.0, 3.0, 3.0]
    assert percentiles_of({float(n): 1 for n in range(1, 101)}) == [50.0, 90.0, 99.0]
    assert percentiles_of({1.0: 989, 2.0: 10, 5.0: 1}) == [1.0, 1.0, 2.0]


def test_the_counts_hold_for_every_way_a_row_can_change(database: Database, new: New) -> None:
    with database.write() as session:
        rows = creation.create_all(session, [new(prompt=f"p{n % 3}") for n in range(20)])
    for row in rows[:10]:
        with database.write() as session:
            claimed = leases.claim(session, "w", ["sketch"], 30.0)
            assert claimed is not None
            assert claimed.id == row.id
            if int(row.id[0], 16) % 2:
                leases.complete(session, row.id, claimed.lease_token or "", Completion("a.wav", 10, 1.234, "1", {}))
            else:
                leases.fail(session, row.id, claimed.lease_token or "", "no", retryable=False)
    with database.write() as session:
        lifecycle.cancel(session, rows[10].id)
        lifecycle.remove(session, rows[11].id)
        session.execute(update(Generation).where(Generation.id == rows[12].id).values(model_name="other"))
        session.execute(update(Generation).where(Generation.status == COMPLETED).values(duration_seconds=7.7))
        assert counts.differences(session) == []
    with database.write() as session:
        session.execute(delete(Generation).where(Generation.status != PENDING))
        session.execute(delete(Prompt).where(Prompt.text == "p1"))
        assert counts.differences(session) == []
        assert statistics(session).total_prompts == 2
    with database.write() as session:
        session.execute(text("DELETE FROM generations"))
        session.execute(text("DELETE FROM prompts"))
        assert counts.differences(session) == []
        assert session.scalar(select(func.sum(func.abs(GenerationCount.generations)))) is not None
        assert statistics(session).overall.total_generations == 0


def test_counts_that_are_wrong_are_told(database: Database, new: New) -> None:
    with database.write() as session:
        creation.create(session, new())
        session.execute(text("UPDATE generation_counts SET generations = generations + 1"))
        session.execute(text("UPDATE prompt_counts SET prompts = 7"))
        session.execute(text("INSERT INTO generation_times VALUES ('sketch', 1.5, 0, 2)"))
        told = counts.differences(session)
    assert len(told) == 3
    assert "pending" in told[0]
    assert "1.5" in told[1]
    assert "prompts" in told[2]


def test_what_is_rolled_back_counts_nothing(database: Database, new: New) -> None:
    with pytest.raises(KeyError), database.write() as session:  # noqa: PT012
        creation.create(session, new())
        raise KeyError
    with database.read() as session:
        assert statistics(session).overall.total_generations == 0
        assert counts.differences(session) == []


def test_workers_at_once_neither_wait_for_the_counts_nor_miscount(database: Database, new: New) -> None:
    with database.write() as session:
        creation.create_all(session, [new() for _ in range(40)])

    def work(worker: str) -> None:
        while True:
            with database.write() as session:
                claimed = leases.claim(session, worker, ["sketch"], 300.0)
            if claimed is None:
                return
            with database.write() as session:
                prompts.count_use(session, f"another {claimed.id}")
                leases.complete(session, claimed.id, claimed.lease_token or "", Completion("a", 1, 2.0, "1", {}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, "abcd"))
    with database.read() as session:
        figures = statistics(session)
        assert figures.overall.by_status == dict.fromkeys(GenerationStatus, 0) | {COMPLETED: 40}
        assert figures.total_prompts == 41
        assert counts.differences(session) == []


def test_a_transaction_left_open_keeps_nobody_from_counting(
    url: str, new: New, open_database: Callable[..., Database]
) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite has one writer")
    first, second = open_database(url), open_database(url)
    with first.write() as open_session:
        creation.create(open_session, new(prompt="a"))
        with second.write() as session:
            creation.create(session, new(prompt="b"))
        creation.create(open_session, new(prompt="c"))
        with second.write() as session:
            creation.create(session, new(prompt="d"))
            assert statistics(session).overall.total_generations == 2
    with second.read() as session:
        assert statistics(session).overall.total_generations == 4
        assert counts.differences(session) == []
        assert session.scalar(select(func.count(GenerationCount.shard.distinct()))) == 2
