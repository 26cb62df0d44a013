"""What the rows say about files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from storage_service.db.database import Database
from storage_service.domain import lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.maintenance.file_records import (
    CompletedFile,
    FileOwner,
    find_completed_file,
    find_file_owners,
    find_shared_paths,
    iter_completed_files,
)
from storage_service.states import GenerationStatus
from tests.support.legal_rows import insert_row


def test_files_of_completed_generations_and_owners_of_any(
    database: Database, new: Callable[..., NewGeneration], monkeypatch: Any
) -> None:
    monkeypatch.setattr("storage_service.maintenance.row_ranges.BATCH_ROWS", 2)
    rows = [insert_row(database, new, "completed") for _ in range(5)] + [insert_row(database, new, "failed")]
    files = list(iter_completed_files(database))
    assert sorted(file.generation_id for file in files) == sorted(row.id for row in rows[:5])
    assert {(file.path, file.size_bytes, file.sha256) for file in files} == {("outputs/a.wav", 10, "ab")}
    assert find_file_owners(database, [rows[0].id, rows[5].id, "x"]) == {
        rows[0].id: FileOwner(GenerationStatus.COMPLETED, 1, "outputs/a.wav"),
        rows[5].id: FileOwner(GenerationStatus.FAILED, 1, None),
    }
    assert find_completed_file(database, rows[0].id) == CompletedFile(rows[0].id, "outputs/a.wav", 10, "ab")
    assert find_completed_file(database, rows[5].id) is None
    assert find_shared_paths(database) == ["outputs/a.wav"]
    for row in rows[1:5]:
        with database.write() as session:
            lifecycle.remove(session, row.id)
    assert find_shared_paths(database) == []
    with database.write() as session:
        session.execute(text("DELETE FROM generations"))
    assert find_completed_file(database, rows[0].id) is None
