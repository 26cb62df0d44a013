"""Statistics of the whole database, read from the counts that its triggers maintain."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dgx_music.errors import InvalidArgument
from storage_service.db.claim_statement import has_status
from storage_service.db.clock import now
from storage_service.db.counts import NOT_FINISHED, GenerationCount, GenerationTime, PromptCount
from storage_service.db.models import Generation
from storage_service.states import TERMINAL_STATES, GenerationStatus

DEFAULT_DAYS = 7
MAX_DAYS = 366
PERCENTILES = (50, 90, 99)


@dataclass
class GenerationTotals:
    """The number of generations in each state, and totals of the completed ones in seconds and bytes."""

    by_status: dict[GenerationStatus, int] = field(default_factory=lambda: dict.fromkeys(GenerationStatus, 0))
    completed_audio_seconds: float = 0.0
    completed_file_bytes: int = 0
    mean_generation_time_seconds: float = 0.0
    percentiles: Sequence[float] = (0.0,) * len(PERCENTILES)
    """The generation times at PERCENTILES, to two significant digits (within 5 %)."""

    @property
    def total_generations(self) -> int:
        """The number of generations in all states."""
        return sum(self.by_status.values())


@dataclass
class DayTotals:
    """What finished on one UTC day."""

    date: date
    finished: dict[GenerationStatus, int] = field(default_factory=lambda: dict.fromkeys(TERMINAL_STATES, 0))
    audio_seconds: float = 0.0
    """Of the completed generations."""
    file_bytes: int = 0
    """Of the completed generations."""


@dataclass(frozen=True)
class Statistics:
    """The totals of all models and of each, of the last days, and the age of the queue."""

    overall: GenerationTotals
    by_model: Mapping[str, GenerationTotals]
    """By model name, sorted."""
    days: Sequence[DayTotals]
    """The last days, today first."""
    total_prompts: int
    oldest_pending_seconds: float


def compute_statistics(session: Session, days: int = 0) -> Statistics:
    """Returns the current totals, and those of the last `days` including today. 0 means 7; the maximum is 366."""
    if not 0 <= days <= MAX_DAYS:
        raise InvalidArgument("days", f"must be from 0 (which means {DEFAULT_DAYS}) to {MAX_DAYS}, not {days}")
    by_model: defaultdict[str, GenerationTotals] = defaultdict(GenerationTotals)
    overall = GenerationTotals()
    work_ms: defaultdict[str, int] = defaultdict(int)
    sums = select(
        GenerationCount.model_name,
        GenerationCount.status,
        func.sum(GenerationCount.generations),
        func.sum(GenerationCount.audio_ms),
        func.sum(GenerationCount.file_bytes),
        func.sum(GenerationCount.work_ms),
    ).group_by(GenerationCount.model_name, GenerationCount.status)
    for model_name, status, count, audio_ms, file_bytes, worked_ms in session.execute(sums.order_by("model_name")):
        if count:
            for each in (by_model[model_name], overall):
                each.by_status[GenerationStatus(status)] += int(count)
                if status == GenerationStatus.COMPLETED:
                    each.completed_audio_seconds += int(audio_ms) / 1000
                    each.completed_file_bytes += int(file_bytes)
            if status == GenerationStatus.COMPLETED:
                work_ms[model_name] = int(worked_ms)
    _add_generation_times(session, by_model, overall, work_ms)
    prompts, oldest_created_at, current = session.execute(
        select(
            select(func.sum(PromptCount.prompts)).scalar_subquery(),
            select(func.min(Generation.created_at)).where(has_status(GenerationStatus.PENDING)).scalar_subquery(),
            now(),
        )
    ).one()
    return Statistics(
        overall=overall,
        by_model=by_model,
        days=_last_days(session, current, days or DEFAULT_DAYS),
        total_prompts=int(prompts or 0),
        oldest_pending_seconds=0.0
        if oldest_created_at is None
        else max(0.0, (current - oldest_created_at).total_seconds()),
    )


def nearest_rank_percentiles(times: Mapping[float, int]) -> list[float]:
    """Returns the nearest-rank percentile for each of PERCENTILES: the smallest value that is at least as large as
    that share of all values. `times` maps each value to its count; the result is 0 if it is empty.
    """
    total, percentiles, seen = sum(times.values()), [], 0
    values = iter(sorted(times))
    value = 0.0
    for percent in PERCENTILES:
        while seen * 100 < percent * total:
            value = next(values)
            seen += times[value]
        percentiles.append(value)
    return percentiles


def _add_generation_times(
    session: Session, by_model: Mapping[str, GenerationTotals], overall: GenerationTotals, work_ms: Mapping[str, int]
) -> None:
    histogram = select(
        GenerationTime.model_name, GenerationTime.seconds, func.sum(GenerationTime.generations)
    ).group_by(GenerationTime.model_name, GenerationTime.seconds)
    times_by_model: defaultdict[str, dict[float, int]] = defaultdict(dict)
    all_times: defaultdict[float, int] = defaultdict(int)
    for model_name, seconds, count in session.execute(histogram):
        if count and model_name in by_model:
            times_by_model[model_name][seconds] = int(count)
            all_times[seconds] += int(count)
    for model_name, model_times in times_by_model.items():
        model_totals = by_model[model_name]
        model_totals.mean_generation_time_seconds = work_ms[model_name] / 1000 / sum(model_times.values())
        model_totals.percentiles = nearest_rank_percentiles(model_times)
    if all_times:
        overall.mean_generation_time_seconds = sum(work_ms.values()) / 1000 / sum(all_times.values())
        overall.percentiles = nearest_rank_percentiles(all_times)


def _last_days(session: Session, current: datetime, days: int) -> list[DayTotals]:
    last = [DayTotals(current.date() - timedelta(days=ago)) for ago in range(days)]
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
