"""`dgx-music stats`: statistics of all generations, by model and by day."""

from __future__ import annotations

from datetime import timedelta

from dgx_music.storage.v1.storage_pb2 import GetStatisticsRequest
from gateway.cli.display.console import Console, escape_text
from gateway.cli.display.units import format_size
from gateway.cli.session.runner import Session
from gateway.timeouts import CALL_TIMEOUT_SECONDS


async def statistics(session: Session, console: Console, days: int) -> int:
    """Prints the totals, and a row for each model and each of the last days."""
    stats = await session.music.GetStatistics(GetStatisticsRequest(days=days), timeout=CALL_TIMEOUT_SECONDS)
    if console.as_json:
        console.print_message(stats)
        return 0
    times = stats.generation_time_percentiles
    console.print_fields(
        (
            ("generations", f"{stats.total_generations}"),
            ("pending", f"{stats.pending_generations}"),
            ("processing", f"{stats.processing_generations}"),
            ("completed", f"{stats.completed_generations}"),
            ("failed", f"{stats.failed_generations}"),
            ("cancelled", f"{stats.cancelled_generations}"),
            ("prompts", f"{stats.total_prompts}"),
            ("audio", _format_length(stats.completed_audio_seconds)),
            ("files", format_size(stats.completed_file_bytes)),
            ("mean time", f"{stats.mean_generation_time_seconds:.2f} s"),
            ("time p50/p90/p99", f"{times.p50_seconds:g} s / {times.p90_seconds:g} s / {times.p99_seconds:g} s"),
            ("longest wait", f"{stats.oldest_pending_seconds:.0f} s" if stats.pending_generations else ""),
        )
    )
    if stats.models:
        console.print_table(
            (
                ("model", False),
                ("unfinished", False),
                ("completed", False),
                ("failed", False),
                ("audio", False),
                ("files", False),
                ("mean time", False),
                ("p90 time", False),
            ),
            (
                (
                    escape_text(model.model_name),
                    f"{model.pending_generations + model.processing_generations}",
                    f"{model.completed_generations}",
                    f"{model.failed_generations}",
                    _format_length(model.completed_audio_seconds),
                    format_size(model.completed_file_bytes),
                    f"{model.mean_generation_time_seconds:.2f} s",
                    f"{model.generation_time_percentiles.p90_seconds:g} s",
                )
                for model in stats.models
            ),
        )
        console.print_table(
            (("day (UTC)", False), ("completed", False), ("failed", False), ("cancelled", False), ("audio", False)),
            (
                (
                    day.date,
                    f"{day.completed_generations}",
                    f"{day.failed_generations}",
                    f"{day.cancelled_generations}",
                    _format_length(day.completed_audio_seconds),
                )
                for day in stats.days
            ),
        )
    return 0


def _format_length(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
