"""What Prometheus can see of the queue, and of what happens to generations."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service_runtime.observability.metrics import Counter, Histogram, Reading
from storage_service.db.claim_statement import has_status
from storage_service.db.clock import now
from storage_service.db.counts import GenerationCount
from storage_service.db.models import Generation
from storage_service.states import GenerationStatus

QUEUE_BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)

CREATED = Counter("dgx_music_storage_generations_created_total", "Generations that were queued.")
CLAIMS = Counter("dgx_music_storage_claims_total", "Attempts that workers have begun.")
LEASE_EXPIRIES = Counter(
    "dgx_music_storage_lease_expiries_total", "Attempts whose worker stopped renewing the lease, e.g. because it died."
)
ATTEMPTS_ENDED = Counter(
    "dgx_music_storage_attempts_ended_total",
    "Attempts that workers have reported as ended: completed, failed, retried (they failed, but not for good), "
    "handed_back or preempted (handed back for another generation).",
    ("outcome",),
)
QUEUE_SECONDS = Histogram(
    "dgx_music_storage_queue_seconds",
    "Time from the creation of a generation to its first claim.",
    buckets=QUEUE_BUCKETS,
)


def read_queue_metrics(session: Session) -> Iterator[Reading]:
    """Yields the number of generations in each state, and how long the queue is. Costs the same with any number."""
    sums = select(
        GenerationCount.status, func.sum(GenerationCount.generations), func.sum(GenerationCount.audio_ms)
    ).group_by(GenerationCount.status)
    counts = dict.fromkeys(GenerationStatus, 0)
    audio_ms = dict.fromkeys(GenerationStatus, 0)
    for status, generations, milliseconds in session.execute(sums):
        counts[GenerationStatus(status)], audio_ms[GenerationStatus(status)] = int(generations), int(milliseconds)
    for state, count in counts.items():
        yield Reading(
            "dgx_music_storage_generations", "Generations in the database.", float(count), {"state": state.value}
        )
    for state in (GenerationStatus.PENDING, GenerationStatus.PROCESSING):
        yield Reading(
            "dgx_music_storage_backlog_audio_seconds",
            "Length of the music that is still to be generated.",
            audio_ms[state] / 1000,
            {"state": state.value},
        )
    clients = select(func.count(func.distinct(Generation.client))).where(Generation.ranked_at.is_not(None))
    yield Reading(
        "dgx_music_storage_queued_clients",
        "Clients that have generations pending or processing.",
        float(session.scalar(clients) or 0),
    )
    oldest = select(func.min(Generation.created_at)).where(has_status(GenerationStatus.PENDING))
    created_at, current = session.execute(select(oldest.scalar_subquery(), now())).one()
    yield Reading(
        "dgx_music_storage_oldest_pending_seconds",
        "Age of the oldest generation that waits for a worker; 0 if none does.",
        0.0 if created_at is None else max(0.0, (current - created_at).total_seconds()),
    )
