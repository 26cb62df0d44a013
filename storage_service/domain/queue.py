"""The order in which pending generations are claimed, and what the sweeper needs to know about them.

The rank of a generation is its creation time, moved ahead by ten minutes for each level of its priority. The smallest
rank is claimed first: among equal priorities the oldest, and a higher priority overtakes only what was created up to
that much earlier. Ranks never change, so a generation that waits long enough is never overtaken and can't starve.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import ScalarSelect, Select, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.sql.elements import ColumnElement

from storage_service.db.clock import now, now_plus
from storage_service.db.counts import GenerationCount
from storage_service.db.models import Generation
from storage_service.states import GenerationStatus

T = TypeVar("T")

SECONDS_PER_PRIORITY_LEVEL = 600.0
"""How far one level of priority moves a generation ahead."""


def compute_rank(priority: ColumnElement[int]) -> ColumnElement[datetime]:
    """Returns the rank of a generation that is created now, as an SQL expression."""
    return now_plus(-SECONDS_PER_PRIORITY_LEVEL * priority)


def has_status(status: GenerationStatus) -> ColumnElement[bool]:
    """Returns a condition with the status as a literal: with a bound parameter, partial indexes would not be used."""
    return Generation.status == literal(status, Generation.status.type, literal_execute=True)


def select_next_id(model_name: str) -> Select[str]:
    """Returns a query for the id of the model's generation that is claimed next."""
    return _select_first_claimable(Generation.id, model_name)


def order_models_by_next_rank(session: Session, model_names: Sequence[str]) -> Sequence[str]:
    """Returns the models that have pending generations, by the rank of their first. A single model is not looked up."""
    if len(model_names) == 1:
        return model_names
    names = [name for name in list_models_with_pending(session) if name in model_names]
    if not names:
        return []
    first_ranks: list[ScalarSelect[datetime | None]] = [
        _select_first_claimable(Generation.ranked_at, name).scalar_subquery() for name in names
    ]
    ranks = zip(session.execute(select(*first_ranks)).one(), names, strict=True)
    return [name for _, name in sorted((rank, name) for rank, name in ranks if rank is not None)]


def list_models_with_pending(session: Session) -> list[str]:
    """Returns the models with PENDING generations, including those that still wait for their retry delay to end."""
    pending = GenerationCount.status == GenerationStatus.PENDING.value
    by_model = select(GenerationCount.model_name).where(pending).group_by(GenerationCount.model_name)
    return list(session.scalars(by_model.having(func.sum(GenerationCount.generations) > 0)))


def seconds_until_due(session: Session) -> float | None:
    """Returns in how many seconds the next lease expires or the next retry delay ends; None if there is neither."""
    leases = select(func.min(Generation.lease_expires_at)).where(has_status(GenerationStatus.PROCESSING))
    # Only PENDING rows have a not_before. With a condition on the status, SQLite would scan all of them.
    waits = select(func.min(Generation.not_before)).where(Generation.not_before > now())
    *due, current = session.execute(select(leases.scalar_subquery(), waits.scalar_subquery(), now())).one()
    times = [time for time in due if time is not None]
    return max(0.0, (min(times) - current).total_seconds()) if times else None


def _select_first_claimable(column: InstrumentedAttribute[T], model_name: str) -> Select[T]:
    is_due = Generation.not_before.is_(None) | (Generation.not_before <= now())
    claimable = select(column).where(has_status(GenerationStatus.PENDING), Generation.model_name == model_name, is_due)
    return claimable.order_by(Generation.ranked_at, Generation.id).limit(1)
