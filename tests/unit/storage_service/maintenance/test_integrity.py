"""`find_violations` finds what the state machine can't have written, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from dgx_music.errors import FailedPrecondition
from storage_service.db import schema
from storage_service.db.database import Database
from storage_service.db.models import Generation
from storage_service.db.sqlite import sqlite3
from storage_service.domain import creation, leases, lifecycle
from storage_service.domain.creation import NewGeneration
from storage_service.domain.leases import Completion
from storage_service.maintenance.integrity import find_violations
from storage_service.states import GenerationStage
from tests.support.legal_rows import LEGAL, SOME_TIME, insert_row

ILLEGAL: list[tuple[str, dict[str, Any], str]] = [
    ("pending", {"lease_token": "t"}, "holds a lease"),
    ("pending", {"lease_expires_at": SOME_TIME}, "holds a lease"),
    ("pending", {"progress": 0.5}, "has progress"),
    ("pending", {"stage": "generating"}, "has a stage but is not PROCESSING"),
    ("pending", {"completed_at": SOME_TIME}, "but is not finished"),
    ("processing", {"lease_token": None}, "only one of lease token and lease end"),
    ("processing", {"lease_expires_at": None}, "only one of lease token and lease end"),
    ("processing", {"lease_check_at": None}, "lease ends without notice"),
    ("processing", {"lease_check_at": "2026-01-02 00:00:00"}, "lease ends without notice"),
    ("processing", {"stage": None}, "without a stage"),
    ("processing", {"stage": "dreaming"}, "unknown stage"),
    ("processing", {"started_at": None}, "never started"),
    ("processing", {"attempt": 0}, "never started"),
    ("processing", {"progress": 1.5}, "outside 0 to 1"),
    ("processing", {"completed_at": SOME_TIME}, "but is not finished"),
    ("completed", {"completed_at": None}, "has no completion time"),
    ("completed", {"file_path": None}, "without a file"),
    ("completed", {"generation_time_seconds": None}, "without a generation time"),
    ("completed", {"started_at": None}, "never started"),
    ("completed", {"progress": 0.5}, "progress other than 1"),
    ("completed", {"stage": "exporting"}, "has a stage but is not PROCESSING"),
    ("completed", {"file_size_bytes": -1}, "negative"),
    ("completed", {"metadata": "[1]"}, "metadata is not a JSON object"),
    ("failed", {"error_message": None}, "without an error message"),
    ("failed", {"completed_at": None}, "has no completion time"),
    ("cancelled", {"completed_at": None}, "has no completion time"),
    ("pending", {"sampling": "7"}, "sampling is not a JSON object"),
    ("pending", {"conditioning": "[]"}, "conditioning is not a JSON object"),
    ("pending", {"edit": "7"}, "edit is not a JSON object"),
    ("pending", {"loop": "true"}, "loop is not a JSON object"),
    ("pending", {"channels": 0}, "out of range"),
    ("completed", {"rating": 0}, "rating other than 1 to 5"),
    ("pending", {"rating": 6}, "rating other than 1 to 5"),
    ("pending", {"attempt": -1}, "attempt count out of range"),
    ("pending", {"request_fingerprint": "f"}, "request id and request fingerprint"),
]


def test_legal_row_of_every_state_has_no_violation(database: Database, new: Callable[..., NewGeneration]) -> None:
    for status in LEGAL:
        insert_row(database, new, status)
    assert list(find_violations(database)) == []


def test_every_illegal_row_is_found(database: Database, new: Callable[..., NewGeneration]) -> None:
    for status in LEGAL:
        insert_row(database, new, status)
    bad = {f"generation {insert_row(database, new, status, **wrong).id}": problem for status, wrong, problem in ILLEGAL}
    reported: dict[str, str] = {}
    for finding in find_violations(database):
        reported[finding.where] = reported.get(finding.where, "") + finding.problem
    assert reported.keys() == bad.keys()
    assert [problem for where, problem in bad.items() if problem not in reported[where]] == []


def test_full_lifecycle_has_no_violation_at_any_point(database: Database, new: Callable[..., NewGeneration]) -> None:
    done = Completion("outputs/a.wav", 1000, 1.0, "1", {"bpm": 84})

    def claim() -> Generation:
        with database.write() as session:
            claimed = leases.claim(session, "w", ["sketch"], 60)
            assert claimed is not None
            return claimed

    with database.write() as session:
        for _ in range(2):
            creation.create(session, new(request_id=None))
    assert list(find_violations(database)) == []
    first = claim()
    with database.write() as session:
        leases.renew(session, first.id, str(first.lease_token), 60, GenerationStage.GENERATING, 0.5)
    assert list(find_violations(database)) == []
    with database.write() as session:
        leases.complete(session, first.id, str(first.lease_token), done)
    second = claim()
    with database.write() as session:
        leases.fail(session, second.id, str(second.lease_token), "no luck", retryable=True)
    assert list(find_violations(database)) == []
    with database.write() as session:
        lifecycle.cancel(session, second.id)
    with database.write() as session:
        lifecycle.remove(session, first.id)
    assert list(find_violations(database)) == []


def test_mismatched_prompts_and_counts_are_found(database: Database, new: Callable[..., NewGeneration]) -> None:
    with database.write() as session:
        for _ in range(2):
            creation.create(session, new(prompt="a calm piano"))
        creation.create(session, new(prompt="drums"))
        session.execute(text("UPDATE prompts SET used_count = 1, text_sha256 = 'x' WHERE text = 'a calm piano'"))
        session.execute(text("DELETE FROM prompts WHERE text = 'drums'"))
        session.execute(text("UPDATE generation_counts SET generations = generations + 5"))
    found = list(find_violations(database))
    assert [finding.problem for finding in found[:1]] == ["has the hash of another text"]
    reported = {finding.where: finding.problem for finding in found[1:]}
    assert reported["prompt 'a calm piano'"] == "has a use count of 1, but 2 generations use it"
    assert reported["prompt 'drums'"] == "has a use count of 0, but 1 generations use it"
    assert "counts say" in reported["counts"]


def test_lineage_that_differs_from_the_rows_is_found(database: Database, new: Callable[..., NewGeneration]) -> None:
    with database.write() as session:
        source = creation.create(session, new()).id
        ids = [creation.create(session, new(variation_of=source)).id for _ in range(5)]
        melody = creation.create(session, new(conditioning={"melody": {"source_id": source}})).id
    assert list(find_violations(database)) == []
    damage = {
        ids[1]: "DELETE FROM parents WHERE child_id = :id",
        ids[2]: "UPDATE parents SET relation = 'sibling' WHERE child_id = :id",
        ids[3]: f"UPDATE parents SET parent_id = '{ids[0]}' WHERE child_id = :id",
        # A cycle.
        source: f"INSERT INTO parents (child_id, parent_id, relation) VALUES (:id, '{ids[0]}', 'variation')",
        melody: """UPDATE generations SET conditioning = '{"melody": {}, "style": 3}' WHERE id = :id""",
    }
    with database.write() as session:
        for generation_id, statement in damage.items():
            session.execute(text(statement), {"id": generation_id})
    expected = dict.fromkeys(damage, "has other parents in the lineage than in its row")
    expected[melody] = "refers to a source without naming it"
    found = {finding.where.removeprefix("generation "): finding.problem for finding in find_violations(database)}
    assert found == expected


def test_lineage_of_a_missing_generation_is_found(database: Database, new: Callable[..., NewGeneration]) -> None:
    if not database.is_sqlite:
        pytest.skip("Postgres always enforces the foreign key")
    with database.write() as session:
        child = creation.create(session, new(variation_of="11111111-2222-4333-8444-555555555555")).id
    with sqlite3.connect(str(database.url.database)) as connection:  # Which does not enforce it.
        connection.execute("DELETE FROM generations")
    connection.close()
    assert [(one.where, one.problem) for one in find_violations(database) if "lineage" in one.problem] == [
        (f"generation {child}", "is in the lineage but does not exist")
    ]


def test_prompt_with_use_count_zero_is_found(database: Database, new: Callable[..., NewGeneration]) -> None:
    with database.write() as session:
        session.execute(text("DELETE FROM generations"))
        lifecycle.remove(session, creation.create(session, new()).id)
        session.execute(text("UPDATE prompts SET used_count = 0"))
    [finding] = find_violations(database)
    assert finding.problem == "has a use count of 0, which must be at least 1"


def test_damaged_file_is_reported_without_checking_rows(
    migrated_file: Path, tmp_path: Path, open_database: Callable[..., Database]
) -> None:
    content = bytearray(migrated_file.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    (tmp_path / "damaged.db").write_bytes(content)
    database = open_database(f"sqlite:///{tmp_path}/damaged.db")
    found = list(find_violations(database))
    assert found
    assert {finding.where for finding in found} == {"database"}


def test_other_schema_is_rejected(empty_url: str, open_database: Callable[..., Database]) -> None:
    schema.upgrade(empty_url, schema.REVISIONS[0])
    database = open_database(empty_url)
    with pytest.raises(FailedPrecondition, match="db migrate"):
        list(find_violations(database))
