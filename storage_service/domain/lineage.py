"""What generations were made from, and what was made from them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import CTE, Row, insert, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service_runtime.shaping import REPAINT
from storage_service.db.dependent_models import ParentLink
from storage_service.db.models import Generation
from storage_service.domain import lifecycle
from storage_service.states import GenerationStatus

MAX_NODES = 1000


class LineageRelation(StrEnum):
    """How a generation or a clip was used for another generation."""

    CONTINUATION = "continuation"
    MELODY = "melody"
    STYLE = "style"
    EXTENSION = "extension"
    REPAINT = "repaint"
    VARIATION = "variation"


@dataclass(frozen=True, slots=True)
class Parent:
    """A generation or a clip, and how it was used."""

    id: str
    relation: LineageRelation


@dataclass(frozen=True, slots=True)
class LineageNode:
    """A generation or a clip. All but its id and its parents is None for a clip and for what was deleted."""

    id: str
    parents: tuple[Parent, ...]
    prompt: str | None = None
    status: GenerationStatus | None = None
    created_at: datetime | None = None


def find_parents(row: Generation | Row[Any]) -> list[Parent]:
    """Returns what a generation's row, or the columns of it that name sources, refers to."""
    conditioning, edit = row.conditioning or {}, row.edit
    used = [
        (LineageRelation.CONTINUATION, row.continuation),
        (LineageRelation.MELODY, conditioning.get("melody")),
        (LineageRelation.STYLE, conditioning.get("style")),
    ]
    if edit:
        used.append((LineageRelation.REPAINT if edit["kind"] == REPAINT else LineageRelation.EXTENSION, edit))
    parents = [Parent(source["source_id"], relation) for relation, source in used if source]
    if row.variation_of:
        parents.append(Parent(row.variation_of, LineageRelation.VARIATION))
    return parents


def insert_links(session: Session, new: Generation) -> None:
    """Records the parents of a new generation."""
    links = [{"child_id": new.id, "parent_id": one.id, "relation": one.relation.value} for one in find_parents(new)]
    if links:
        session.connection().execute(insert(ParentLink), links)


def read_lineage(session: Session, generation_id: str, max_nodes: int = MAX_NODES) -> tuple[list[LineageNode], bool]:
    """Returns the generation, its ancestors and its descendants, oldest first, and whether some of them are missing.

    Raises NotFound if there is no such generation. The nearest come into the result first.
    """
    generation_id = lifecycle.get(session, generation_id).id
    ids = {generation_id: None}
    for start, end in ((ParentLink.child_id, ParentLink.parent_id), (ParentLink.parent_id, ParentLink.child_id)):
        reachable = _reachable(generation_id, start, end)
        ids |= dict.fromkeys(session.scalars(select(reachable.c.id).limit(max_nodes + 1)))
    kept = list(ids)[:max_nodes]
    columns = Generation.id, Generation.prompt, Generation.status, Generation.created_at
    facts = {id_: known for id_, *known in session.execute(select(*columns).where(Generation.id.in_(kept)))}
    parents: dict[str, list[Parent]] = {}
    links = select(ParentLink.child_id, ParentLink.parent_id, ParentLink.relation).where(ParentLink.child_id.in_(kept))
    for child_id, parent_id, relation in session.execute(links.order_by(ParentLink.relation, ParentLink.parent_id)):
        parents.setdefault(child_id, []).append(Parent(parent_id, LineageRelation(relation)))
    nodes = [LineageNode(id_, tuple(parents.get(id_, ())), *facts.get(id_, ())) for id_ in kept]
    # A clip, and what was deleted, has no parents that are known, so it can precede everything else.
    oldest = datetime.min.replace(tzinfo=UTC)
    nodes.sort(key=lambda node: (node.created_at or oldest, node.id))
    return nodes, len(ids) > max_nodes


def _reachable(generation_id: str, start: InstrumentedAttribute[str], end: InstrumentedAttribute[str]) -> CTE:
    """Returns the ids that are reached from a generation by links from `start` to `end`, without the generation."""
    first = select(end.label("id")).where(start == generation_id).cte(recursive=True)
    return first.union(select(end).join(first, start == first.c.id))
