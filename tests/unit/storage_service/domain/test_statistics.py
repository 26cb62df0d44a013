"""Statistics over all generations, by model and by day."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import insert, select

from dgx_music.errors import InvalidArgument
from storage_service.db import counts
from storage_service.db.clock import now, now_plus
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from storage_service.domain.statistics import compute_statistics, nearest_rank_percentiles
from storage_service.states import GenerationStatus

New = Callable[..., NewGeneration]
Row = Callable[..., Generation]
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = GenerationStatus


def test_statistics_total_all_models_and_each(database: Database, row_in: Row) -> None:
    with database.read() as session:
        empty = compute_statistics(session)
    assert (empty.overall.total_generations, empty.total_prompts, empty.oldest_pending_seconds) == (0, 0, 0.0)
    assert (empty.overall.completed_audio_seconds, empty.overall.mean_generation_time_seconds) == (0, 0)
    assert empty.overall.percentiles == (0.0, 0.0, 0.0)
    assert empty.by_model == {}
    for status in GenerationStatus:
        row_in(status)
    row_in(COMPLETED, file_size_bytes=2**40, generation_time_seconds=1.0)
    row_in(COMPLETED, file_size_bytes=1, generation_time_seconds=2.0, model_name="other", duration_seconds=0.125)
    with database.read() as session:
        figures = compute_statistics(session)
        assert counts.find_count_mismatches(session) == []
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


def test_statistics_of_last_days(database: Database, row_in: Row) -> None:
    day = 86400.0
    row_in(COMPLETED, completed_at=now(), file_size_bytes=5)
    row_in(COMPLETED, completed_at=now_plus(-2 * day), duration_seconds=1.5)
    row_in(COMPLETED, completed_at=now_plus(-9 * day))
    row_in(CANCELLED, completed_at=now_plus(-2 * day))
    with database.read() as session:
        figures = compute_statistics(session, days=3)
        today = session.scalars(select(now())).one().date()
        assert [one.date for one in figures.days] == [today - timedelta(days=ago) for ago in range(3)]
        assert [one.finished[COMPLETED] for one in figures.days] == [1, 0, 1]
        assert [one.finished[CANCELLED] for one in figures.days] == [0, 0, 1]
        assert [one.audio_seconds for one in figures.days] == [4.0, 0.0, 1.5]
        assert [one.file_bytes for one in figures.days] == [5, 0, 0]
        assert len(compute_statistics(session).days) == 7
        assert len(compute_statistics(session, days=366).days) == 366
        for days in (-1, 367):
            with pytest.raises(InvalidArgument) as raised:
                compute_statistics(session, days=days)
            assert raised.value.field == "days"


@pytest.mark.parametrize("seed", range(3))
def test_percentiles_are_within_five_percent(database: Database, new: New, seed: int) -> None:
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
        found = compute_statistics(session).overall
        assert counts.find_count_mismatches(session) == []
    ordered = sorted(times)
    for value, percent in zip(found.percentiles, (50, 90, 99), strict=True):
        assert value == pytest.approx(ordered[len(times) * percent // 100 - 1], rel=0.05)
    assert found.mean_generation_time_seconds == pytest.approx(sum(times) / len(times), abs=0.001)


def test_nearest_rank_percentiles() -> None:
    assert nearest_rank_percentiles({}) == [0.0, 0.0, 0.0]
    assert nearest_rank_percentiles({3.0: 1}) == [3.0, 3.0, 3.0]
    assert nearest_rank_percentiles({float(n): 1 for n in range(1, 101)}) == [50.0, 90.0, 99.0]
    assert nearest_rank_percentiles({1.0: 989, 2.0: 10, 5.0: 1}) == [1.0, 1.0, 2.0]
