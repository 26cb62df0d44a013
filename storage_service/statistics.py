"""Figures over the whole database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage_service.clock import now
from storage_service.models import Generation, Prompt
from storage_service.states import GenerationStatus


@dataclass(frozen=True)
class Statistics:
    """How many of each there are, and what the completed ones come to. Seconds and bytes."""

    by_status: dict[GenerationStatus, int]
    total_prompts: int
    completed_audio_seconds: float
    completed_file_bytes: int
    mean_generation_time_seconds: float
    oldest_pending_seconds: float

    @property
    def total_generations(self) -> int:
        """Generations in all."""
        return sum(self.by_status.values())


def statistics(session: Session) -> Statistics:
    """The figures as of now, in one statement, so that they agree with one another."""
    of_status = [func.count().filter(Generation.status == status) for status in GenerationStatus]
    completed = Generation.status == GenerationStatus.COMPLETED
    oldest = func.min(Generation.created_at).filter(Generation.status == GenerationStatus.PENDING)
    figures: Sequence[Any] = session.execute(
        select(
            *of_status,
            select(func.count()).select_from(Prompt).scalar_subquery(),
            func.coalesce(func.sum(Generation.duration_seconds).filter(completed), 0.0),
            func.coalesce(func.sum(Generation.file_size_bytes).filter(completed), 0),
            func.coalesce(func.avg(Generation.generation_time_seconds).filter(completed), 0.0),
            oldest,
            now(),
        ).select_from(Generation)
    ).one()
    *counts, prompts, audio_seconds, file_bytes, mean_time, waits_since, current = figures
    return Statistics(
        by_status=dict(zip(GenerationStatus, counts, strict=True)),
        total_prompts=prompts,
        completed_audio_seconds=float(audio_seconds),
        completed_file_bytes=int(file_bytes),
        mean_generation_time_seconds=float(mean_time),
        oldest_pending_seconds=0.0 if waits_since is None else max(0.0, (current - waits_since).total_seconds()),
    )
