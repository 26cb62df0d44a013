"""Figures over the whole database, read from the counts that its triggers keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dgx_music.errors import InvalidArgument
from storage_service.db.clock import now
from storage_service.db.counts import NOT_FINISHED, GenerationCount, GenerationTime, PromptCount
from storage_service.db.models import Generation
from storage_service.domain.queue import in_status
from storage_service.states import FINISHED, GenerationStatus

DEFAULT_DAYS = 7
MAX_DAYS = 366
PERCENTILES = (50, 90, 99)


@dataclass
class Figures:
    """How many there are in each state, and what the completed ones come to. Seconds and bytes."""

    by_status: dict[GenerationStatus, int] = field(default_factory=lambda: dict.fromkeys(GenerationStatus, 0))
    completed_audio_seconds: float = 0.0
    completed_file_bytes: int = 0
    mean_generation_time_seconds: float = 0.0
    percentiles: Sequence[float] = (0.0,) * len(PERCENTILES)
    """Generation times of PERCENTILES, to two significant digits (within 5 %)."""

    @property
    def total_generations(self) -> int:
        """Generations in all."""
        return sum(self.by_status.values())


@dataclass
class Day:
    """What finished on one day, UTC."""

    date: date
    finished: dict[GenerationStatus, int] = field(default_factory=lambda: dict.fromkeys(FINISHED, 0))
    audio_seconds: float = 0.0
    """Of those completed."""
    file_bytes: int = 0
    """Of those completed."""


@dataclass(frozen=True)
class Statistics:
    """The figures of all and of each model, the last days, and what waits."""

    overall: Figures
    by_model: Mapping[str, Figures]
    """By name, in the names' order."""
    days: Sequence[Day]
    """Today first."""
    total_prompts: int
    oldest_pending_seconds: float


def statistics(session: Session, days: int = 0) -> Statistics:
    """The figures as of now, and those of so many days, today's included; 0 for 7. InvalidArgument beyond 366."""
    if not 0 <= days <= MAX_DAYS:
        raise InvalidArgument("days", f"must be 0 (for {DEFAULT_DAYS}) to {MAX_DAYS}, not {days}")
    by_model: defaultdict[str, Figures] = defaultdict(Figures)
    overall = Figures()
    work_ms: defaultdict[str, int] = defaultdict(int)
    totals = select(
        GenerationCount.model_name,
        GenerationCount.status,
        func.sum(GenerationCount.generations),
        func.sum(GenerationCount.audio_ms),
        func.sum(GenerationCount.file_bytes),
        func.sum(GenerationCount.work_ms),
    ).group_by(GenerationCount.model_name, GenerationCount.status)
    for model_name, status, count, audio_ms, file_bytes, worked_ms in session.execute(totals.order_by("model_name")):
        if count:
            for figures in (by_model[model_name], overall):
                figures.by_status[GenerationStatus(status)] += int(count)
                if status == GenerationStatus.COMPLETED:
                    figures.completed_audio_seconds += int(audio_ms) / 1000
                    figures.completed_file_bytes += int(file_bytes)
            if status == GenerationStatus.COMPLETED:
                work_ms[model_name] = int(worked_ms)
    _add_times(session, by_model, overall, work_ms)
    prompts, waits_since, current = session.execute(
        select(
            select(func.sum(PromptCount.prompts)).scalar_subquery(),
            select(func.min(Generation.created_at)).where(in_status(GenerationStatus.PENDING)).scalar_subquery(),
            now(),
        )
    ).one()
    return Statistics(
        overall=overall,
        by_model=by_model,
        days=_last_days(session, current, days or DEFAULT_DAYS),
        total_prompts=int(prompts or 0),
        oldest_pending_seconds=0.0 if waits_since is None else max(0.0, (current - waits_since).total_seconds()),
    )


def percentiles_of(times: Mapping[float, int]) -> list[float]:
    """The smallest value that so many percent are no larger than, for each of PERCENTILES (the nearest rank).

    `times`: how many there are of each value. 0 where there are none.
    """
    total, found, seen = sum(times.values()), [], 0
    values = iter(sorted(times))
    value = 0.0
    for percent in PERCENTILES:
        while seen * 100 < percent * total:
            value = next(values)
            seen += times[value]
        found.append(value)
    return found


def _add_times(session: Session, by_model: Mapping[str, Figures], overall: Figures, work_ms: Mapping[str, int]) -> None:
    histogram = select(
        GenerationTime.model_name, GenerationTime.seconds, func.sum(GenerationTime.generations)
    ).group_by(GenerationTime.model_name, GenerationTime.seconds)
    times: defaultdict[str, dict[float, int]] = defaultdict(dict)
    of_all: defaultdict[float, int] = defaultdict(int)
    for model_name, seconds, count in session.execute(histogram):
        if count and model_name in by_model:
            times[model_name][seconds] = int(count)
            of_all[seconds] += int(count)
    for model_name, of_model in times.items():
        figures = by_model[model_name]
        figures.mean_generation_time_seconds = work_ms[model_name] / 1000 / sum(of_model.values())
        figures.percentiles = percentiles_of(of_model)
    if of_all:
        overall.mean_generation_time_seconds = sum(work_ms.values()) / 1000 / sum(of_all.values())
        overall.percentiles = percentiles_of(of_all)


def _last_days(session: Session, current: datetime, days: int) -> list[Day]:
    last = [Day(current.date() - timedelta(days=ago)) for ago in range(days)]
    by_date = {day.date: day for day in last}
    finished = select(
        GenerationCount.finished_on,
        GenerationCount.status,
        func.sum(GenerationCount.generations),
        func.sum(GenerationCount.audio_ms),
        func.sum(GenerationCount.file_bytes),
    ).where(GenerationCount.finished_on >= last[-1].date, GenerationCount.finished_on > NOT_FINISHED)
    for finished_on, status, count, audio_ms, file_bytes in session.execute(
        finished.group_by(GenerationCount.finished_on, GenerationCount.status)
    ):
        day = by_date.get(finished_on)
        if day is None or status not in day.finished:
            continue
        day.finished[GenerationStatus(status)] += int(count)
        if status == GenerationStatus.COMPLETED:
            day.audio_seconds, day.file_bytes = int(audio_ms) / 1000, int(file_bytes)
    return last
