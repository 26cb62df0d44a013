"""What those who watch an engine see."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A snapshot of the engine's load. Rates are averages over the last ten seconds."""

    running: int
    waiting: int
    max_batch_size: int
    max_waiting: int
    steps_per_second: float
    audio_seconds_per_second: float
    kv_reserved_bytes: int
    kv_limit_bytes: int
