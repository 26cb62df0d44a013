"""What those who watch an engine see."""

from __future__ import annotations

from dataclasses import dataclass, field

from service_runtime.observability.metrics import Distribution

STEP_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""In seconds."""
BATCH_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


def step_distribution() -> Distribution:
    """Returns an empty distribution of the seconds that decode steps take."""
    return Distribution(STEP_BUCKETS)


def batch_distribution() -> Distribution:
    """Returns an empty distribution of the sizes of batches."""
    return Distribution(BATCH_BUCKETS)


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
    total_audio_seconds: float = 0.0
    """Generated since the engine started, as are the steps counted here."""
    step_seconds: Distribution = field(default_factory=step_distribution)
    batch_sizes: Distribution = field(default_factory=batch_distribution)
