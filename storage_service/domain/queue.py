"""The order in which generations that wait are claimed, and what a sweep needs to know of them.

A generation's rank is when it was created, brought forward by ten minutes for each level of its priority. The smallest
rank goes first: of equal priority the first that came, and of a higher priority those that came up to so much later.
As ranks stand still while time goes on, nothing that comes later than that overtakes an old one: it does not starve.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ScalarSelect, Select, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.elements import ColumnElement

from storage_service.db.clock import later, now
from storage_service.db.counts import GenerationCount
from storage_service.db.models import Generation
from storage_service.states import GenerationStatus

T = TypeVar("T")

PRIORITIES = (-10, 10)
"""The lowest and the highest; who says nothing has 0."""
RANK_STEP_SECONDS = 600.0
"""By how much a level of priority brings a generation forward."""


def rank(priority: ColumnElement[int]) -> ColumnElement[datetime]:
    """The rank of what is created now, in SQL."""
    return later(-RANK_STEP_SECONDS * priority)


def in_status(status: GenerationStatus) -> ColumnElement[bool]:
    """The status in so many letters, as partial indexes have it: by a bound value they would not be used."""
    return Generation.status == literal(status, Generation.status.type, literal_execute=True)


def next_of(model_name: str) -> Select[str]:
    """The id of the model's generation that is to be claimed next."""
    return _first(Generation.id, model_name)


def models_in_turn(session: Session, model_names: Sequence[str]) -> Sequence[str]:
    """Those of the models that have work, by the rank of what is next. A single one is not looked at."""
    if len(model_names) == 1:
        return model_names
    names = [name for name in models_with_work(session) if name in model_names]
    if not names:
        return []
    heads: list[ScalarSelect[datetime | None]] = [
        _first(Generation.ranked_at, name).scalar_subquery() for name in names
    ]
    ranks = zip(session.execute(select(*heads)).one(), names, strict=True)
    return [name for _, name in sorted((head, name) for head, name in ranks if head is not None)]


def models_with_work(session: Session) -> list[str]:
    """Models of which a generation is PENDING; it may have to wait for another attempt yet."""
    pending = GenerationCount.status == GenerationStatus.PENDING.value
    by_model = select(GenerationCount.model_name).where(pending).group_by(GenerationCount.model_name)
    return list(session.scalars(by_model.having(func.sum(GenerationCount.generations) > 0)))


def seconds_until_due(session: Session) -> float | None:
    """When the next lease ends or the next wait for another attempt; None if there is neither."""
    leases = select(func.min(Generation.lease_expires_at)).where(in_status(GenerationStatus.PROCESSING))
    # Only what is PENDING has a not_before. With the status said, SQLite would go through all that is.
    waits = select(func.min(Generation.not_before)).where(Generation.not_before > now())
    *due, current = session.execute(select(leases.scalar_subquery(), waits.scalar_subquery(), now())).one()
    moments = [moment for moment in due if moment is not None]
    return max(0.0, (min(moments) - current).total_seconds()) if moments else None


def _first(column: InstrumentedAttribute[T], model_name: str) -> Select[T]:
    may_start = Generation.not_before.is_(None) | (Generation.not_before <= now())
    waiting = select(column).where(in_status(GenerationStatus.PENDING), Generation.model_name == model_name, may_start)
    return waiting.order_by(Generation.ranked_at, Generation.id).limit(1)
