"""Damage of the text index is found, and repaired without loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from service_runtime.rpc.paging import Page
from storage_service.db.database import Database
from storage_service.domain import creation
from storage_service.domain.creation import NewGeneration
from storage_service.domain.listing import GenerationFilter, list_generations
from storage_service.maintenance.integrity import REINDEX, TEXT_INDEX, find_violations
from storage_service.maintenance.vacuum import vacuum
from storage_service.search.index_repair import rebuild_index

DAMAGES = {
    "sqlite": (
        "DELETE FROM prompt_search_data WHERE id > 10",
        "INSERT INTO prompt_search(prompt_search) VALUES ('delete-all')",
        "INSERT INTO prompt_search(prompt_search, rowid, text) VALUES ('delete', 1, 'a calm piano  ')",
        "UPDATE prompts SET text = 'a loud piano', text_sha256 = '97d5f4ed2a3c6c0f' WHERE id = 1",
    ),
    "postgres": (
        "DELETE FROM prompt_search WHERE prompt_id = 1",
        "UPDATE prompt_search SET text = 'other'",
        "UPDATE prompt_search SET prompt_hash = 7",
        "INSERT INTO prompt_search VALUES (99, 1, 'ghost')",
    ),
}


@pytest.mark.parametrize("number", range(4))
def test_damaged_index_is_found_and_rebuilt(database: Database, new: Callable[..., NewGeneration], number: int) -> None:
    with database.write() as session:
        rows = creation.create_all(session, [new(), new(prompt="drums"), new(prompt="an organ")])
        ids = {row.prompt: row.id for row in rows}
    assert list(find_violations(database)) == []
    with database.write() as session:
        session.execute(text(DAMAGES["sqlite" if database.is_sqlite else "postgres"][number]))
    findings = [finding for finding in find_violations(database) if finding.where == TEXT_INDEX]
    assert findings
    assert {finding.remedy for finding in findings} == {REINDEX}

    rebuild_index(database)
    assert [finding for finding in find_violations(database) if finding.where == TEXT_INDEX] == []
    with database.read() as session:
        for needle, prompt in (("drum", "drums"), ("rg", "an organ")):
            found, _ = list_generations(session, GenerationFilter(prompt_contains=needle), Page())
            assert [row.id for row in found] == [ids[prompt]]


def test_missing_index_is_found(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite's own check finds what is missing")
    with database.connect_for_writing() as connection:
        connection.execute(text("ALTER INDEX ix_generations_prompt RENAME TO aside"))
    assert [finding.problem for finding in find_violations(database)] == ["lacks ix_generations_prompt"]
    with database.connect_for_writing() as connection:
        connection.execute(text("ALTER INDEX aside RENAME TO ix_generations_prompt"))


def test_vacuum_forgets_deleted_prompts(database: Database, new: Callable[..., NewGeneration]) -> None:
    with database.write() as session:
        creation.create_all(session, [new(), new(prompt="drums")])
        session.execute(text("DELETE FROM generations WHERE prompt = 'drums'"))
        session.execute(text("DELETE FROM prompts WHERE text = 'drums'"))
    vacuum(database)
    assert list(find_violations(database)) == []
