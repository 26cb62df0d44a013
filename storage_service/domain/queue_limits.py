"""The limits of the queue: generations in it, per client and in all, and minutes of audio per client and day.

They are checked in the transaction that queues the generations, after `queue.lock_client`: a client's limits are exact,
however many servers share the database. The limit in all is exact on SQLite; on Postgres, transactions of different
clients do not wait for one another, so it may be exceeded by what is queued at the same moment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dgx_music.errors import ResourceExhausted
from storage_service.db.access_models import ClientUsage
from storage_service.db.clock import now_plus
from storage_service.db.models import Generation
from storage_service.db.upsert import dialect_name, insert_into
from storage_service.domain.queue import QueueState
from storage_service.states import GenerationStatus

QUEUE_LIMIT_REACHED = "QUEUE_LIMIT_REACHED"
"""Reason: the queue of all clients is full."""
CLIENT_QUEUE_LIMIT_REACHED = "CLIENT_QUEUE_LIMIT_REACHED"
"""Reason: the client has as many generations in the queue as it may have."""
DAILY_LIMIT_REACHED = "DAILY_LIMIT_REACHED"
"""Reason: the client has created as many minutes of audio today as its token allows."""

DEFAULT_RETRY_SECONDS = 30.0
"""When to try again if nothing was completed lately, so that the wait can't be estimated."""
RETRY_SECONDS_RANGE = (1.0, 600.0)
"""The limits of an estimate: a queue seldom drains as foreseen."""
MEASURED_SECONDS = 600.0
"""Generations that completed in so many seconds are measured."""
_MEASURED_ROWS = 200

_SECONDS_PER_MINUTE = 60.0


@dataclass(frozen=True)
class QueueLimits:
    """How many generations may be PENDING or PROCESSING at a time."""

    max_pending: int
    """Of all clients."""
    max_pending_per_client: int
    """Of a client whose token does not limit it further."""


def require_room(
    session: Session, limits: QueueLimits, state: QueueState, client: str, durations: Sequence[float]
) -> None:
    """Raises ResourceExhausted if the client may not queue generations of these durations, in seconds, now."""
    if not durations:
        return
    per_client = min(limits.max_pending_per_client, state.max_queued or limits.max_pending_per_client)
    excess = state.client_queued + len(durations) - per_client
    if excess > 0:
        problem = f"client {client!r} has {state.client_queued} generations in the queue and may have {per_client}"
        raise _queue_error(session, state, CLIENT_QUEUE_LIMIT_REACHED, problem, excess, per_client, len(durations))
    excess = state.queued + len(durations) - limits.max_pending
    if excess > 0:
        problem = f"{state.queued} generations of all clients are in the queue, which holds {limits.max_pending}"
        raise _queue_error(session, state, QUEUE_LIMIT_REACHED, problem, excess, limits.max_pending, len(durations))
    if state.minutes_per_day:
        _require_minutes(session, state, client, sum(durations))


def count_usage(session: Session, state: QueueState, client: str, audio_seconds: float) -> None:
    """Adds to what the client has used today, if its token limits that."""
    if not state.minutes_per_day or not audio_seconds:
        return
    statement = insert_into(dialect_name(session), ClientUsage)
    session.connection().execute(
        statement.on_conflict_do_update(
            index_elements=[ClientUsage.client, ClientUsage.day],
            set_={"audio_seconds": ClientUsage.audio_seconds + statement.excluded.audio_seconds},
        ),
        {"client": client, "day": state.now.date(), "audio_seconds": audio_seconds},
    )


def estimate_wait(throughput: float | None, excess: int, queued: int, queued_audio_seconds: float) -> float:
    """Returns in how many seconds `excess` generations of the queue will have been completed, within limits.

    `throughput` is in seconds of audio per second, None if it is unknown. The generations are taken to be as long as
    the mean of the queue.
    """
    if not throughput or not queued:
        return DEFAULT_RETRY_SECONDS
    low, high = RETRY_SECONDS_RANGE
    return min(max(excess * queued_audio_seconds / queued / throughput, low), high)


def measure_throughput(session: Session) -> float | None:
    """Returns the seconds of audio that were completed per second lately; None if nothing was.

    The time counts from when the first of these generations was started. The newest generations stand for the last
    completed ones, because there is no index by completion.
    """
    newest = (
        select(Generation.duration_seconds, Generation.started_at, Generation.completed_at)
        .where(Generation.status == GenerationStatus.COMPLETED)
        .order_by(Generation.created_at.desc())
        .limit(_MEASURED_ROWS)
        .subquery()
    )
    lately = select(func.sum(newest.c.duration_seconds), func.min(newest.c.started_at), now_plus(0.0)).where(
        newest.c.completed_at > now_plus(-MEASURED_SECONDS)
    )
    audio_seconds, started_at, current = session.execute(lately).one()
    elapsed_seconds = (current - started_at).total_seconds() if started_at else 0.0
    return audio_seconds / elapsed_seconds if elapsed_seconds > 0 else None


def _queue_error(
    session: Session, state: QueueState, reason: str, problem: str, excess: int, limit: int, requested: int
) -> ResourceExhausted:
    throughput = measure_throughput(session)
    wait_seconds = estimate_wait(throughput, excess, state.queued, state.queued_audio_seconds)
    if requested > limit:
        advice = f"queue at most {limit} at a time"
    elif throughput is None:
        advice = f"try again in {wait_seconds:.0f} s; the actual wait is unknown, because none was completed recently"
    else:
        advice = (
            f"try again in about {math.ceil(wait_seconds)} s; lately, {throughput:.1f} s of audio were completed per "
            "second"
        )
    return ResourceExhausted(
        f"{problem}: {advice}",
        reason=reason,
        metadata={"limit": str(limit), "queued": str(state.queued), "client_queued": str(state.client_queued)},
        retry_after_seconds=wait_seconds,
    )


def _require_minutes(session: Session, state: QueueState, client: str, audio_seconds: float) -> None:
    usage = session.get(ClientUsage, (client, state.now.date()))
    used_seconds = 0.0 if usage is None else usage.audio_seconds
    if used_seconds + audio_seconds <= state.minutes_per_day * _SECONDS_PER_MINUTE:
        return
    midnight = datetime.combine(state.now.date() + timedelta(days=1), time(), state.now.tzinfo)
    raise ResourceExhausted(
        f"client {client!r} has created {used_seconds / _SECONDS_PER_MINUTE:.1f} minutes of audio today and may "
        f"create {state.minutes_per_day:g} a day, so {audio_seconds:g} s more are too many: wait until 00:00 UTC, or "
        "ask for a token with a higher limit",
        reason=DAILY_LIMIT_REACHED,
        metadata={"minutes_per_day": f"{state.minutes_per_day:g}", "used_seconds": f"{used_seconds:g}"},
        retry_after_seconds=(midnight - state.now).total_seconds(),
    )
