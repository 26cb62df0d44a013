"""The order in which pending generations are claimed, and what the sweeper needs to know about them.

The smallest rank is claimed first. A generation gets its rank when it enters the queue, and keeps it. Ranks are start
tags of start-time fair queueing (Goyal, Vin, Cheng, SIGCOMM 1996, section 2; the engine's queue uses the same): clients
share what is generated, in seconds of audio and in proportion to their weights, so that one client's thousands of
generations do not delay another's first. A client's next generation starts where its last one ends. See
docs/decisions/0014-fair-queue.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache

from sqlalchemy import ScalarSelect, func, select, text
from sqlalchemy.orm import Session

from storage_service.db.claim_statement import has_status, select_first_claimable
from storage_service.db.clock import now
from storage_service.db.counts import GenerationCount
from storage_service.db.models import Generation
from storage_service.db.upsert import dialect_name
from storage_service.states import GenerationStatus

SECONDS_PER_PRIORITY_LEVEL = 600.0
"""How many seconds of audio one level of priority moves a generation ahead."""

_CLIENT_LOCK = 0x6467_7871  # "dgxq": the first key of the advisory locks on clients


@dataclass(frozen=True)
class Place:
    """The place of a generation in the queue."""

    rank: datetime
    priority: int
    duration_seconds: float
    weight: float = 1.0
    """That of its client."""

    @property
    def start(self) -> datetime:
        """The rank that it would have with priority 0."""
        return self.rank + _lead(self.priority)

    @property
    def length(self) -> timedelta:
        """How far it moves its client's next generation back."""
        return timedelta(seconds=self.duration_seconds / self.weight)


@dataclass(frozen=True)
class QueueState:
    """What the rank of a new generation depends on, and how much its client and all clients have queued."""

    now: datetime
    """The database's time."""
    running: Place | None
    """Of the generations that are PROCESSING, the last in the queue's order. If there are more than 16, of those whose
    leases end last or nearly so."""
    head: Place | None
    """The first PENDING one of the model."""
    last: Place | None
    """Of the client's PENDING and PROCESSING generations of at least this priority, the last in the queue's order."""
    client_queued: int = 0
    """PENDING and PROCESSING generations of the client."""
    queued: int = 0
    """Those of all clients."""
    queued_audio_seconds: float = 0.0
    """Their audio."""
    max_queued: int = 0
    """How many generations the client's token lets it have in the queue; 0 if it does not limit that."""
    weight: float = 1.0
    """The client's share, by its token."""
    minutes_per_day: float = 0.0
    """How many minutes of audio the client's token lets it create in a day; 0 if it does not limit that."""


def compute_virtual_time(state: QueueState) -> datetime:
    """Returns where in the queue's order service has arrived, for the next generation of the client.

    For a client that has others in the queue, that is the start of the one being generated. For a newcomer it is its
    middle: a newcomer comes after it, but before its client's next. If an old one is generated once more after a
    failure, it is not much before the next one in the queue.
    """
    share = 0.5 if state.last is None else 0.0
    if state.head is None:
        return state.now if state.running is None else state.running.start + state.running.length * share
    served = state.running or state.head
    return max(served.start + served.length * share, state.head.start - state.head.length)


def compute_rank(state: QueueState, priority: int) -> datetime:
    """Returns the rank of a generation that enters the queue in this state.

    Its client's generations of a lower priority are not in its way, because `state.last` is none of those.
    """
    rank = compute_virtual_time(state) - _lead(priority)
    return rank if state.last is None else max(rank, state.last.rank + state.last.length)


def add_place(state: QueueState, place: Place, *, of_model: bool, priority: int) -> QueueState:
    """Returns the state for the client's next generation of `priority`, after it has queued one at `place`.

    `of_model` says whether the two are of the same model.
    """
    head, last = state.head, state.last
    if of_model and (head is None or place.rank < head.rank):
        head = place
    if place.priority >= priority and (last is None or place.rank > last.rank):
        last = place
    return replace(state, head=head, last=last)


def lock_client(session: Session, client: str) -> None:
    """Blocks other transactions that queue generations of this client, until this transaction ends.

    Otherwise two of them would count what is queued without each other, and get the same rank. On SQLite there is only
    one writer anyway. Generations without a client do not wait for one another.
    """
    if client and dialect_name(session) == "postgresql":
        session.connection().execute(_LOCK, {"client": client})


def read_state(session: Session, client: str, model_name: str, priority: int) -> QueueState:
    """Returns the state of the queue for a new generation of the client. `lock_client` comes first."""
    parameters = {"client": client, "model_name": model_name, "priority": priority}
    # Not as a construct of SQLAlchemy, which would take longer than the database does.
    row = session.connection().exec_driver_sql(_state_statement(dialect_name(session)), parameters).one()
    now, client_queued, queued, audio_ms, max_queued, minutes_per_day, weight, *places = row
    return QueueState(
        now=_to_utc(now),
        running=_read_place(*places[0:4]),
        head=_read_place(*places[4:8]),
        last=_read_place(*places[8:12]),
        client_queued=client_queued,
        queued=int(queued or 0),
        queued_audio_seconds=int(audio_ms or 0) / 1000,
        max_queued=max_queued or 0,
        minutes_per_day=minutes_per_day or 0.0,
        weight=weight or 1.0,
    )


_LOCK = text(f"SELECT pg_advisory_xact_lock({_CLIENT_LOCK}, hashtext(:client))")

_STATE = """
    SELECT {now}, (SELECT count(*) FROM generations WHERE client = {client} AND ranked_at IS NOT NULL),
        backlog.*, token.*, running.*, head.*, last.*
    FROM (
        SELECT sum(generations), sum(audio_ms) FROM generation_counts WHERE status IN ('pending', 'processing')
    ) AS backlog LEFT JOIN (
        SELECT max_queued, minutes_per_day, weight FROM tokens
        WHERE name = {client} AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > {now}) LIMIT 1
    ) AS token ON 1 = 1 LEFT JOIN (
        SELECT ranked_at, priority, duration_seconds, weight FROM (
            SELECT ranked_at, priority, duration_seconds, weight FROM generations
            WHERE status = 'processing' ORDER BY lease_check_at DESC LIMIT 16
        ) AS leased ORDER BY ranked_at DESC LIMIT 1
    ) AS running ON 1 = 1 LEFT JOIN (
        SELECT ranked_at, priority, duration_seconds, weight FROM generations
        WHERE status = 'pending' AND model_name = {model_name} ORDER BY ranked_at LIMIT 1
    ) AS head ON 1 = 1 LEFT JOIN (
        SELECT ranked_at, priority, duration_seconds, weight FROM generations
        WHERE client = {client} AND ranked_at IS NOT NULL AND priority >= {priority} ORDER BY ranked_at DESC LIMIT 1
    ) AS last ON 1 = 1
"""
"""One statement for all: on Postgres, a round trip takes longer than the search in an index."""


@cache
def _state_statement(dialect: str) -> str:
    names = "client", "model_name", "priority"
    if dialect == "sqlite":
        return _STATE.format(now="(SELECT dgx_now(0.0))", **{name: f":{name}" for name in names})
    return _STATE.format(now="statement_timestamp()", **{name: f"%({name})s" for name in names})


def _read_place(
    rank: str | datetime | None, priority: int, duration_seconds: float, weight: float | None
) -> Place | None:
    return None if rank is None else Place(_to_utc(rank), priority, duration_seconds, weight or 1.0)


def _to_utc(stored: str | datetime) -> datetime:
    """Converts a timestamp as the driver returns it."""
    return datetime.fromisoformat(f"{stored}+00:00") if isinstance(stored, str) else stored.astimezone(UTC)


def _lead(priority: int) -> timedelta:
    return timedelta(seconds=SECONDS_PER_PRIORITY_LEVEL * priority)


def order_models_by_next_rank(session: Session, model_names: Sequence[str]) -> Sequence[str]:
    """Returns the models that have pending generations, by the rank of their first. A single model is not looked up."""
    if len(model_names) == 1:
        return model_names
    names = [name for name in list_models_with_pending(session) if name in model_names]
    if not names:
        return []
    first_ranks: list[ScalarSelect[datetime | None]] = [
        select_first_claimable(Generation.ranked_at, name).scalar_subquery() for name in names
    ]
    ranks = zip(session.execute(select(*first_ranks)).one(), names, strict=True)
    return [name for _, name in sorted((rank, name) for rank, name in ranks if rank is not None)]


def list_models_with_pending(session: Session) -> list[str]:
    """Returns the models with PENDING generations, including those that still wait for their retry delay to end."""
    pending = GenerationCount.status == GenerationStatus.PENDING.value
    by_model = select(GenerationCount.model_name).where(pending).group_by(GenerationCount.model_name)
    return list(session.scalars(by_model.having(func.sum(GenerationCount.generations) > 0)))


def seconds_until_due(session: Session) -> float | None:
    """Returns in how many seconds the next lease may expire or the next retry delay ends; None if there is neither."""
    is_leased, has_begun = has_status(GenerationStatus.PROCESSING), Generation.lease_check_at <= now()
    checks = select(func.min(Generation.lease_check_at)).where(is_leased, Generation.lease_check_at > now())
    leases = select(func.min(Generation.lease_expires_at)).where(is_leased, has_begun)
    # Only PENDING rows have a not_before. With a condition on the status, SQLite would scan all of them.
    waits = select(func.min(Generation.not_before)).where(Generation.not_before > now())
    dates = [query.scalar_subquery() for query in (checks, leases, waits)]
    *due, current = session.execute(select(*dates, now())).one()
    times = [time for time in due if time is not None]
    return max(0.0, (min(times) - current).total_seconds()) if times else None
