"""Which running generation makes room for a more important one that has waited for too long.

A worker that renews its lease is asked to hand the generation back if

- the generation that would be claimed next, of the models that this worker offers, has waited for longer than the limit
  and has a higher priority, and
- this one has the lowest priority of all that run with these models; of several, it was claimed last.

So one at a time is asked, and each has made progress before it is asked again: a generation that was handed back is
left alone for `MIN_RUN_SECONDS`, and for good if its model can't go on from a checkpoint. See
docs/decisions/0027-hand-back.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage_service.db.claim_statement import has_status, select_first_claimable
from storage_service.db.clock import now, now_plus
from storage_service.db.dependent_models import Checkpoint
from storage_service.db.models import Generation
from storage_service.domain import queue
from storage_service.states import GenerationStage, GenerationStatus

MIN_RUN_SECONDS = 30.0
"""How long a generation that was handed back runs undisturbed after it was claimed again. To go on takes one pass over
what was done, seconds even for a long piece, so most of this time is progress."""
HEADS_SECONDS = 1.0
"""How old the knowledge of what waits and of who would make room for it may be. Leases are renewed hundreds of times a
second."""


@dataclass(frozen=True)
class Head:
    """The PENDING generation of a model that is claimed next."""

    id: str
    model_name: str
    priority: int
    ranked_at: datetime
    is_overdue: bool
    """Whether it has waited for longer than the limit."""


def read_heads(session: Session, after_seconds: float) -> list[Head]:
    """Returns the first generation of each model, with whether it has waited for `after_seconds`."""
    heads = []
    since = func.coalesce(Generation.not_before, Generation.created_at)
    for model_name in queue.list_models_with_pending(session):
        first = select_first_claimable(Generation.id, model_name).correlate(None).scalar_subquery()
        columns = Generation.id, Generation.priority, Generation.ranked_at, since <= now_plus(-after_seconds)
        row = session.execute(select(*columns).where(Generation.id == first)).one_or_none()
        if row is not None and row.ranked_at is not None:
            heads.append(Head(row.id, model_name, row.priority, row.ranked_at, bool(row[3])))
    return heads


def find_preemptor(heads: Sequence[Head], model_names: Collection[str], priority: int) -> Head | None:
    """Returns for whom a generation of this priority would have to make room at a worker with these models."""
    offered = [head for head in heads if head.model_name in model_names]
    following = min(offered, key=lambda head: head.ranked_at, default=None)
    if following is None or not following.is_overdue or following.priority <= priority:
        return None
    return following


def find_lowest(session: Session, preemptor: Head, model_names: Collection[str]) -> str | None:
    """Returns the id of the generation that has to make room at a worker with these models; None if none has to, or
    the preemptor no longer waits."""
    still_waits = (
        select(Generation.id)
        .where(Generation.id == preemptor.id, Generation.status == GenerationStatus.PENDING)
        .correlate(None)
        .exists()
    )
    may_be_asked = Checkpoint.generation_id.is_(None) | (
        (func.length(Checkpoint.data) > 0) & (Generation.started_at <= now_plus(-MIN_RUN_SECONDS))
    )
    lowest = (
        select(Generation.id)
        .outerjoin(Checkpoint, Checkpoint.generation_id == Generation.id)
        .where(
            has_status(GenerationStatus.PROCESSING),
            Generation.lease_expires_at > now(),
            Generation.model_name.in_(model_names),
            Generation.priority < preemptor.priority,
            Generation.stage.is_distinct_from(GenerationStage.EXPORTING.value),  # It ends by itself soon.
            may_be_asked,
            still_waits,
        )
        .order_by(Generation.priority, Generation.started_at.desc(), Generation.id)
        .limit(1)
    )
    return session.scalar(lowest)


class _Waiting:
    """What waits, and who would have to make room for it, as read at some moment."""

    def __init__(self, heads: Sequence[Head]) -> None:
        self.heads = heads
        self._lowest: dict[tuple[str, frozenset[str]], str | None] = {}

    def find_lowest(self, session: Session, preemptor: Head, model_names: Collection[str]) -> str | None:
        """Does what `find_lowest` does, once for all renewals: it reads all rows that are PROCESSING."""
        key = preemptor.id, frozenset(model_names)
        if key not in self._lowest:
            self._lowest[key] = find_lowest(session, preemptor, model_names)
        return self._lowest[key]


class Preemption:
    """Answers renewals, with what waits and who runs read once a second. May be called from several threads."""

    def __init__(self, after_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`after_seconds` is the limit; 0 for never."""
        self._after_seconds = after_seconds
        self._clock = clock
        self._waiting = _Waiting(())
        self._read_at = float("-inf")

    def find(self, session: Session, generation: Generation, model_names: Collection[str]) -> str:
        """Returns the id of the generation for which this one, whose lease was renewed, is to be handed back; empty if
        it is not."""
        if not self._after_seconds or not model_names:
            return ""
        if self._clock() - self._read_at >= HEADS_SECONDS:
            self._read_at = self._clock()  # First, so that other threads don't read them, too.
            self._waiting = _Waiting(read_heads(session, self._after_seconds))
        waiting = self._waiting
        preemptor = find_preemptor(waiting.heads, model_names, generation.priority)
        if preemptor is None or waiting.find_lowest(session, preemptor, model_names) != generation.id:
            return ""
        # Only this one, which then was the lowest, asks whether it still is.
        return preemptor.id if find_lowest(session, preemptor, model_names) == generation.id else ""
