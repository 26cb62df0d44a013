"""The statement of a claim: one UPDATE, in one round trip, however many models the worker has.

It is built once per dialect, because building it takes longer than running it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Double, Select, Text, Update, bindparam, exists, func, literal, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import ColumnElement

from storage_service.db.clock import now, now_plus
from storage_service.db.models import Generation
from storage_service.states import GenerationStage, GenerationStatus

T = TypeVar("T")

CHECK_AFTER = 0.9
"""After which part of a lease it is looked for at the earliest. Less than 1, because SQLite reads its clock for each
expression: a lease must not be looked for only after it has ended."""


def has_status(status: GenerationStatus) -> ColumnElement[bool]:
    """Returns a condition with the status as a literal: with a bound parameter, partial indexes would not be used."""
    return Generation.status == literal(status, Generation.status.type, literal_execute=True)


def select_first_claimable(column: InstrumentedAttribute[T], model_name: str | ColumnElement[str]) -> Select[T]:
    """Returns a query for a column of the model's generation that is claimed next."""
    is_due = Generation.not_before.is_(None) | (Generation.not_before <= now())
    claimable = select(column).where(has_status(GenerationStatus.PENDING), Generation.model_name == model_name, is_due)
    return claimable.order_by(Generation.ranked_at, Generation.created_at).limit(1)


def select_expired() -> Select[str]:
    """Returns a query for the ids of the generations whose leases have expired."""
    may_have_expired = Generation.lease_check_at <= now()  # In the index.
    has_expired = Generation.lease_expires_at <= now()
    return select(Generation.id).where(has_status(GenerationStatus.PROCESSING), may_have_expired, has_expired)


@cache
def claim_statement(dialect: str, *, of_one_model: bool, unless_expired: bool) -> Update:
    """Returns the UPDATE of the first generation in the queue, for `claim_parameters`.

    Of several models, it is that with the first generation. `unless_expired`: of none if a lease has expired, whose
    generation may come before it.
    """
    first = select_first_claimable(Generation.id, _first_model(dialect, of_one_model))
    conditions = [
        Generation.id == first.with_for_update(skip_locked=True).correlate(None).scalar_subquery(),
        Generation.status == GenerationStatus.PENDING,
    ]
    if unless_expired:
        conditions.append(~exists(select_expired().correlate(None)))
    claimed = update(Generation).where(*conditions)
    return claimed.values(
        status=GenerationStatus.PROCESSING,
        lease_token=bindparam("token"),
        lease_expires_at=now_plus(bindparam("seconds", type_=Double)),
        lease_check_at=now_plus(bindparam("check_seconds", type_=Double)),
        attempt=Generation.attempt + 1,
        worker_id=bindparam("worker"),
        started_at=now(),
        not_before=None,
        stage=GenerationStage.QUEUED.value,
        progress=0.0,
    )


def claim_parameters(
    dialect: str, model_names: Sequence[str], token: str, lease_seconds: float, worker_id: str
) -> Mapping[str, Any]:
    """Returns the parameters of the statement."""
    models: str | list[str] = model_names[0] if len(model_names) == 1 else list(model_names)
    if dialect == "sqlite" and isinstance(models, list):
        models = json.dumps(models)
    check_seconds = CHECK_AFTER * lease_seconds
    return {
        "models": models,
        "token": token,
        "seconds": lease_seconds,
        "check_seconds": check_seconds,
        "worker": worker_id,
    }


def _first_model(dialect: str, of_one_model: bool) -> ColumnElement[str]:
    if of_one_model:
        return bindparam("models", type_=Text)
    if dialect == "sqlite":
        names = func.json_each(bindparam("models", type_=Text)).table_valued("value")
    else:
        names = func.unnest(bindparam("models", type_=postgresql.ARRAY(Text))).table_valued("value").render_derived()
    rank = select_first_claimable(Generation.ranked_at, names.c.value).correlate(names).scalar_subquery()
    heads = select(names.c.value, rank.label("rank")).subquery()
    first = select(heads.c.value).order_by(heads.c.rank.nulls_last(), heads.c.value).limit(1)
    return first.scalar_subquery()
