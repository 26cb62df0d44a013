"""Lineage: parents of all kinds, found in both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, select

from dgx_music.errors import InvalidArgument, NotFound
from service_runtime.shaping import EXTEND_RIGHT, REPAINT
from storage_service.db.database import Database
from storage_service.db.dependent_models import ParentLink
from storage_service.db.models import Generation
from storage_service.domain import creation, lifecycle, lineage
from storage_service.domain.creation import NewGeneration
from storage_service.domain.lineage import LineageRelation, Parent
from storage_service.maintenance.integrity import find_violations
from storage_service.states import GenerationStatus

New = Callable[..., NewGeneration]
CLIP = "11111111-2222-4333-8444-55555555aaaa"
REQUEST_ID = "99999999-2222-4333-8444-55555555aaaa"

Create = Callable[..., str]


@pytest.fixture
def create(database: Database, new: New) -> Create:
    def create(**changes: Any) -> str:
        with database.write() as session:
            return creation.create(session, new(**changes)).id

    return create


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    """What is sent to the database."""
    sent: list[str] = []
    with database.read() as session:
        engine = session.get_bind()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def test_every_kind_of_source_is_a_parent(database: Database, create: Create) -> None:
    first, second = create(), create(prompt="a melody")
    child = create(
        edit={"source_id": first, "kind": EXTEND_RIGHT, "added_seconds": 2.0},
        conditioning={"melody": {"source_id": second}, "style": {"source_id": CLIP, "seconds": 3.0}},
        variation_of=first,
    )
    repainted = create(edit={"source_id": child, "kind": REPAINT, "end_seconds": 1.0})
    continued = create(continuation={"source_id": child, "seconds": 10.0})
    with database.read() as session:
        nodes, is_truncated = lineage.read_lineage(session, child.upper())
        row = session.get_one(Generation, child)
    assert not is_truncated
    assert [node.id for node in nodes] == [CLIP, first, second, child, repainted, continued]
    found = {node.id: node for node in nodes}
    assert [one.relation for one in found[child].parents] == sorted(one.relation for one in found[child].parents)
    expected = {
        Parent(first, LineageRelation.EXTENSION),
        Parent(second, LineageRelation.MELODY),
        Parent(CLIP, LineageRelation.STYLE),
        Parent(first, LineageRelation.VARIATION),
    }
    assert set(found[child].parents) == set(lineage.find_parents(row)) == expected
    assert found[repainted].parents == (Parent(child, LineageRelation.REPAINT),)
    assert found[continued].parents == (Parent(child, LineageRelation.CONTINUATION),)
    assert (found[CLIP].prompt, found[CLIP].status, found[CLIP].created_at) == (None, None, None)
    assert (found[second].prompt, found[second].status) == ("a melody", GenerationStatus.PENDING)
    assert row.conditioning == {"melody": {"source_id": second}, "style": {"source_id": CLIP, "seconds": 3.0}}
    assert list(find_violations(database)) == []


def test_relatives_of_relatives_are_found_but_no_siblings(database: Database, create: Create) -> None:
    root = create()
    parent = create(variation_of=root)
    create(variation_of=root)
    child = create(variation_of=parent)
    grandchild = create(variation_of=child)
    with database.read() as session:
        assert [node.id for node in lineage.read_lineage(session, parent)[0]] == [root, parent, child, grandchild]


def test_deleted_generation_stays_known_as_a_parent(database: Database, create: Create) -> None:
    root = create()
    parent = create(variation_of=root)
    child = create(variation_of=parent)
    with database.write() as session:
        lifecycle.remove(session, parent)
    with database.read() as session:
        nodes, _ = lineage.read_lineage(session, child)
        assert [(node.id, node.status) for node in nodes] == [(parent, None), (child, GenerationStatus.PENDING)]
        assert session.scalars(select(ParentLink.child_id)).all() == [child]
        with pytest.raises(NotFound):
            lineage.read_lineage(session, parent)
    with database.read() as session, pytest.raises(InvalidArgument):
        lineage.read_lineage(session, "x")


def test_long_lineage_is_cut_at_its_far_end(database: Database, create: Create) -> None:
    chain = [create()]
    for _ in range(9):
        chain.append(create(variation_of=chain[-1]))
    with database.read() as session:
        nodes, is_truncated = lineage.read_lineage(session, chain[-1], max_nodes=4)
        assert (is_truncated, [node.id for node in nodes]) == (True, chain[-4:])
        nodes, is_truncated = lineage.read_lineage(session, chain[-1], max_nodes=10)
        assert (is_truncated, [node.id for node in nodes]) == (False, chain)


def test_repeated_request_has_its_parents_once(database: Database, create: Create) -> None:
    parent = create()
    first = create(variation_of=parent, request_id=REQUEST_ID, seed=1)
    assert create(variation_of=parent, request_id=REQUEST_ID, seed=1) == first
    with pytest.raises(InvalidArgument) as error:
        create(request_id=REQUEST_ID, seed=1)
    assert error.value.reason == "REQUEST_ID_REUSED"
    with database.read() as session:
        assert len(session.scalars(select(ParentLink)).all()) == 1


def test_plain_generation_costs_no_statement_more(database: Database, create: Create, statements: list[str]) -> None:
    create()
    assert not any("parents" in statement for statement in statements)


def test_family_with_many_ways_between_its_members_is_complete(database: Database, create: Create) -> None:
    """There are 2¹² ways from the last one to the first."""
    family = [create()]
    for _ in range(12):
        source = {"source_id": family[-1]}
        family.append(create(conditioning={"melody": source, "style": source}))
    for start in (family[0], family[-1]):
        with database.read() as session:
            nodes, is_truncated = lineage.read_lineage(session, start)
        assert {node.id for node in nodes} == set(family)
        assert not is_truncated
