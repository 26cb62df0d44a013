"""`dgx-music stats`: figures over all generations, by model and by day."""

from __future__ import annotations

from datetime import timedelta

from dgx_music.storage.v1.storage_pb2 import GetStatisticsRequest
from gateway.cli.display.console import Screen, escaped
from gateway.cli.session.runner import CALL_SECONDS, Session


async def statistics(session: Session, screen: Screen, days: int) -> int:
    """Figures over all generations, and those of the last days."""
    got = await session.music.GetStatistics(GetStatisticsRequest(days=days), timeout=CALL_SECONDS)
    if screen.as_json:
        screen.message(got)
        return 0
    times = got.generation_time_percentiles
    screen.facts(
        (
            ("generations", f"{got.total_generations}"),
            ("pending", f"{got.pending_generations}"),
            ("processing", f"{got.processing_generations}"),
            ("completed", f"{got.completed_generations}"),
            ("failed", f"{got.failed_generations}"),
            ("cancelled", f"{got.cancelled_generations}"),
            ("prompts", f"{got.total_prompts}"),
            ("audio", _length(got.completed_audio_seconds)),
            ("files", _size(got.completed_file_bytes)),
            ("mean time", f"{got.mean_generation_time_seconds:.2f} s"),
            ("half within", f"{times.p50_seconds:g} s, 90 % {times.p90_seconds:g} s, 99 % {times.p99_seconds:g} s"),
            ("longest wait", f"{got.oldest_pending_seconds:.0f} s" if got.pending_generations else ""),
        )
    )
    if got.models:
        screen.rows(
            (
                ("model", False),
                ("waiting", False),
                ("completed", False),
                ("failed", False),
                ("audio", False),
                ("files", False),
                ("mean time", False),
                ("90 % within", False),
            ),
            (
                (
                    escaped(model.model_name),
                    f"{model.pending_generations + model.processing_generations}",
                    f"{model.completed_generations}",
                    f"{model.failed_generations}",
                    _length(model.completed_audio_seconds),
                    _size(model.completed_file_bytes),
                    f"{model.mean_generation_time_seconds:.2f} s",
                    f"{model.generation_time_percentiles.p90_seconds:g} s",
                )
                for model in got.models
            ),
        )
        screen.rows(
            (("day (UTC)", False), ("completed", False), ("failed", False), ("cancelled", False), ("audio", False)),
            (
                (
                    day.date,
                    f"{day.completed_generations}",
                    f"{day.failed_generations}",
                    f"{day.cancelled_generations}",
                    _length(day.completed_audio_seconds),
                )
                for day in got.days
            ),
        )
    return 0


def _length(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
