"""The creation of comparisons, and what is left of them when generations are deleted."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound
from service_runtime.rpc.paging import Page
from storage_service.db.database import Database
from storage_service.db.dependent_models import Comparison, ComparisonEntry
from storage_service.db.models import Generation
from storage_service.domain import lifecycle
from storage_service.domain.comparisons.comparison_creation import NewComparison, create_comparison
from storage_service.domain.comparisons.comparison_listing import list_comparisons
from storage_service.maintenance.integrity import find_violations
from storage_service.states import GenerationStatus

Row = Callable[..., Generation]
NOBODY = "00000000-0000-4000-8000-000000000000"
REQUEST_ID = "99999999-2222-4333-8444-55555555aaaa"
COMPLETED = {"file_path": "a.wav", "progress": 1.0, "generation_time_seconds": 1.0, "lease_token": None}


@pytest.fixture
def takes(row_in: Row) -> list[str]:
    """Four completed generations."""
    return [completed(row_in) for _ in range(4)]


def completed(row_in: Row) -> str:
    return row_in(GenerationStatus.COMPLETED, completed_at=func.now(), **COMPLETED, lease_expires_at=None).id


def save(database: Database, *ids: str, blind: bool = False, request_id: str | None = None) -> Comparison:
    with database.write() as session:
        return create_comparison(session, NewComparison(ids, blind, request_id))


def ranked(comparison: Comparison) -> list[str]:
    return [entry.generation_id for entry in comparison.entries]


def listed(session: Session, generation_id: str = "") -> list[list[str]]:
    return [ranked(one) for one in list_comparisons(session, generation_id, Page())[0]]


def test_order_is_kept(database: Database, takes: list[str]) -> None:
    saved = save(database, takes[2].upper(), takes[0], takes[3], blind=True)
    assert ranked(saved) == [takes[2], takes[0], takes[3]]
    assert (saved.blind, saved.request_id) == (True, None)
    other = save(database, takes[1], takes[0])
    assert not other.blind
    with database.read() as session:
        assert listed(session) == [[takes[1], takes[0]], [takes[2], takes[0], takes[3]]]
    assert list(find_violations(database)) == []


@pytest.mark.parametrize(
    ("ids", "field"),
    [
        ([], "generation_ids"),
        ([NOBODY], "generation_ids"),
        ([f"{number:08x}-0000-4000-8000-000000000000" for number in range(5)], "generation_ids"),
        ([NOBODY, "x"], "generation_ids[1]"),
        ([REQUEST_ID, NOBODY, REQUEST_ID.upper()], "generation_ids[2]"),
    ],
)
def test_invalid_request_names_its_field(database: Database, ids: list[str], field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        save(database, *ids)
    assert raised.value.field == field


def test_only_completed_generations_are_compared(database: Database, takes: list[str], row_in: Row) -> None:
    running = row_in(GenerationStatus.PROCESSING).id
    with pytest.raises(FailedPrecondition, match=r"generation_ids\[1\].*is PROCESSING") as raised:
        save(database, takes[0], running)
    assert raised.value.reason == "NOT_COMPLETED"
    with pytest.raises(NotFound):
        save(database, takes[0], NOBODY)
    with pytest.raises(InvalidArgument) as invalid:
        save(database, takes[0], takes[1], request_id="x")
    assert invalid.value.field == "request_id"
    with database.read() as session:
        assert listed(session) == []


def test_request_id_saves_once(database: Database, takes: list[str]) -> None:
    first = save(database, *takes[:3], request_id=REQUEST_ID)
    again = save(database, *takes[:3], request_id=REQUEST_ID.upper())
    assert (again.id, ranked(again)) == (first.id, takes[:3])
    for changed in ((takes[1], takes[0], takes[2]), takes[:2]):
        with pytest.raises(InvalidArgument, match=first.id) as raised:
            save(database, *changed, request_id=REQUEST_ID)
        assert raised.value.reason == "REQUEST_ID_REUSED"
    with pytest.raises(InvalidArgument):
        save(database, *takes[:3], blind=True, request_id=REQUEST_ID)
    with database.write() as session:
        lifecycle.remove(session, takes[1])
    left = save(database, *takes[:3], request_id=REQUEST_ID)
    assert (left.id, ranked(left)) == (first.id, [takes[0], takes[2]])


def test_simultaneous_equal_requests_save_once(database: Database, takes: list[str]) -> None:
    with ThreadPoolExecutor(4) as pool:
        saved = list(pool.map(lambda _: save(database, *takes, request_id=REQUEST_ID).id, range(8)))
    assert len(set(saved)) == 1
    with database.read() as session:
        assert listed(session) == [takes]


def test_deleted_generation_leaves_the_others(database: Database, takes: list[str]) -> None:
    save(database, *takes)
    save(database, takes[0], takes[1])
    with database.write() as session:
        lifecycle.remove(session, takes[1])
    with database.read() as session:
        assert listed(session) == [[takes[0], takes[2], takes[3]]]
    with database.write() as session:
        lifecycle.remove(session, takes[0])
        lifecycle.remove(session, takes[3])
    with database.read() as session:
        assert listed(session) == []
        assert session.scalar(select(func.count()).select_from(ComparisonEntry)) == 0
    assert list(find_violations(database)) == []


def test_statement_that_deletes_many_leaves_no_remains(database: Database, takes: list[str]) -> None:
    save(database, *takes)
    save(database, takes[3], takes[0])
    with database.write() as session:
        session.execute(text("DELETE FROM generations"))
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Comparison)) == 0


def test_simultaneous_deletions_leave_no_comparison_of_one(database: Database, row_in: Row) -> None:
    for _ in range(2):
        ids = [completed(row_in) for _ in range(4)]
        save(database, *ids[:3])
        save(database, *reversed(ids))

        def remove(generation_id: str) -> None:
            with database.write() as session:
                lifecycle.remove(session, generation_id)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(remove, ids[:3]))
        with database.read() as session:
            assert listed(session) == []
    assert list(find_violations(database)) == []


def test_check_finds_what_no_call_can_have_written(database: Database, takes: list[str]) -> None:
    ids = [save(database, takes[0], takes[1]).id for _ in range(3)]
    lone = "77777777-2222-4333-8444-55555555aaaa"
    with database.write() as session:
        session.execute(text("UPDATE comparison_entries SET place = 1 WHERE comparison_id = :id"), {"id": ids[0]})
        session.execute(text("UPDATE comparisons SET request_id = :id WHERE id = :id"), {"id": ids[1]})
        session.add(Comparison(id=lone, blind=True))
    found = {finding.where: finding.problem for finding in find_violations(database)}
    assert found == {
        f"comparison {ids[0]}": "has two generations in the same place",
        f"comparison {ids[1]}": "has only one of request id and request fingerprint",
        f"comparison {lone}": "has 0 generations, which must be 2 to 4",
    }
