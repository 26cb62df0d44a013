"""The counts that triggers maintain and statistics are read from."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, func, select, text, update

from storage_service.db import counts
from storage_service.db.counts import GenerationCount
from storage_service.db.database import Database
from storage_service.db.models import Generation, Prompt
from storage_service.domain import creation, leases, lifecycle, prompts
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.domain.statistics import compute_statistics
from storage_service.states import GenerationStatus

New = Callable[..., NewGeneration]
Row = Callable[..., Generation]
PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = GenerationStatus


def test_counts_match_rows_after_every_kind_of_change(database: Database, new: New) -> None:
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
        assert counts.find_count_mismatches(session) == []
    with database.write() as session:
        session.execute(delete(Generation).where(Generation.status != PENDING))
        session.execute(delete(Prompt).where(Prompt.text == "p1"))
        assert counts.find_count_mismatches(session) == []
        assert compute_statistics(session).total_prompts == 2
    with database.write() as session:
        session.execute(text("DELETE FROM generations"))
        session.execute(text("DELETE FROM prompts"))
        assert counts.find_count_mismatches(session) == []
        assert session.scalar(select(func.sum(func.abs(GenerationCount.generations)))) is not None
        assert compute_statistics(session).overall.total_generations == 0


def test_find_count_mismatches_reports_wrong_counts(database: Database, new: New) -> None:
    with database.write() as session:
        creation.create(session, new())
        session.execute(text("UPDATE generation_counts SET generations = generations + 1"))
        session.execute(text("UPDATE prompt_counts SET prompts = 7"))
        session.execute(text("INSERT INTO generation_times VALUES ('sketch', 1.5, 0, 2)"))
        mismatches = counts.find_count_mismatches(session)
    assert len(mismatches) == 3
    assert "pending" in mismatches[0]
    assert "1.5" in mismatches[1]
    assert "prompts" in mismatches[2]


def test_counts_are_exact_with_concurrent_workers(database: Database, new: New) -> None:
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
        figures = compute_statistics(session)
        assert figures.overall.by_status == dict.fromkeys(GenerationStatus, 0) | {COMPLETED: 40}
        assert figures.total_prompts == 41
        assert counts.find_count_mismatches(session) == []


def test_rollback_leaves_counts_unchanged(database: Database, new: New) -> None:
    with pytest.raises(KeyError), database.write() as session:  # noqa: PT012
        creation.create(session, new())
        raise KeyError
    with database.read() as session:
        assert compute_statistics(session).overall.total_generations == 0
        assert counts.find_count_mismatches(session) == []


def test_open_transaction_does_not_block_counts(url: str, new: New, open_database: Callable[..., Database]) -> None:
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
            assert compute_statistics(session).overall.total_generations == 2
    with second.read() as session:
        assert compute_statistics(session).overall.total_generations == 4
        assert counts.find_count_mismatches(session) == []
        assert session.scalar(select(func.count(GenerationCount.shard.distinct()))) == 2
