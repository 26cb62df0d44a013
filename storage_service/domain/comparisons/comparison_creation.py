"""The creation of a comparison, once per request id."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, insert, select
from sqlalchemy.orm import Session, selectinload

from dgx_music.errors import FailedPrecondition, InvalidArgument, NotFound
from service_runtime.validation import check_uuid
from storage_service.db.dependent_models import Comparison, ComparisonEntry
from storage_service.db.models import Generation
from storage_service.db.upsert import dialect_name, insert_into
from storage_service.states import GenerationStatus

MIN_COMPARED, MAX_COMPARED = 2, 4


@dataclass(frozen=True)
class NewComparison:
    """A request for a comparison. Errors use the field names of CreateComparisonRequest."""

    generation_ids: Sequence[str]
    """Best first."""
    blind: bool = False
    request_id: str | None = None

    def check(self) -> NewComparison:
        """Returns the request with its UUIDs in lower case. Raises InvalidArgument for the first invalid field."""
        request_id = None if self.request_id is None else check_uuid("request_id", self.request_id)
        number = len(self.generation_ids)
        if not MIN_COMPARED <= number <= MAX_COMPARED:
            raise InvalidArgument(
                "generation_ids", f"must have {MIN_COMPARED} to {MAX_COMPARED} generations, best first, not {number}"
            )
        ids = [check_uuid(f"generation_ids[{index}]", one) for index, one in enumerate(self.generation_ids)]
        for index, one in enumerate(ids):
            if one in ids[:index]:
                raise InvalidArgument(f"generation_ids[{index}]", f"names {one} twice; each has one place")
        return NewComparison(ids, self.blind, request_id)

    def fingerprint(self) -> str:
        """Returns a hash that equal requests share: 64 bits of SHA-256, in hex."""
        return hashlib.sha256(" ".join([*self.generation_ids, str(self.blind)]).encode()).hexdigest()[:16]


def create_comparison(session: Session, new: NewComparison) -> Comparison:
    """Creates a comparison, or returns the one that the same request created before.

    Raises InvalidArgument for an invalid field, and for `request_id` if it was used for a different request; NotFound
    for a generation that does not exist, and FailedPrecondition for one that is not COMPLETED.
    """
    new = new.check()
    while True:
        if new.request_id is not None and (earlier := _find_by_request_id(session, new)) is not None:
            return earlier
        _lock_completed(session, new.generation_ids)
        statement = insert_into(dialect_name(session), Comparison).values(
            id=str(uuid.uuid4()),
            blind=new.blind,
            request_id=new.request_id,
            request_fingerprint=None if new.request_id is None else new.fingerprint(),
        )
        created = session.scalar(statement.on_conflict_do_nothing().returning(Comparison.__table__.c.id))
        if created is not None:  # Otherwise another call with the same request id was first.
            places = enumerate(new.generation_ids, 1)
            rows = [{"comparison_id": created, "generation_id": one, "place": place} for place, one in places]
            session.execute(insert(ComparisonEntry), rows)
            return session.scalars(_with_entries().where(Comparison.id == created)).one()


def _with_entries() -> Select[Comparison]:
    return select(Comparison).options(selectinload(Comparison.entries))


def _find_by_request_id(session: Session, new: NewComparison) -> Comparison | None:
    earlier = session.scalars(_with_entries().where(Comparison.request_id == new.request_id)).one_or_none()
    if earlier is not None and earlier.request_fingerprint != new.fingerprint():
        raise InvalidArgument(
            "request_id",
            f"was used for a different request, which created comparison {earlier.id}; use a new UUID",
            reason="REQUEST_ID_REUSED",
        )
    return earlier


def _lock_completed(session: Session, generation_ids: Sequence[str]) -> None:
    """Requires that all are COMPLETED, and on Postgres keeps them from being deleted until the transaction ends."""
    rows = select(Generation.id, Generation.status).where(Generation.id.in_(generation_ids)).order_by(Generation.id)
    statuses = {row.id: row.status for row in session.execute(rows.with_for_update(read=True, key_share=True))}
    for index, one in enumerate(generation_ids):
        if one not in statuses:
            raise NotFound("generation", one)
        if statuses[one] is not GenerationStatus.COMPLETED:
            raise FailedPrecondition(
                f"generation_ids[{index}]: generation {one} is {statuses[one].name}; only those that are COMPLETED "
                "can be compared",
                reason="NOT_COMPLETED",
                metadata={"id": one, "state": statuses[one].name},
            )
