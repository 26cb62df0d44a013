"""Snapshots of an engine for those who watch it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from generation_service.engine.sequence import Sequence, Stage

MAX_REQUESTS = 1000
"""The maximum number of requests in a snapshot."""


@dataclass(frozen=True, slots=True)
class RequestStatus:
    """One request that is running or waiting."""

    generation_id: str
    """Empty if the request was submitted without one."""
    client: str
    model_name: str
    stage: Stage
    frames: int
    """Frames generated so far."""
    expected_frames: int
    sample_rate_hz: int
    age_seconds: float
    """Seconds since the request was submitted."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A snapshot of the engine's load. Rates are averages over the last ten seconds."""

    running: int
    waiting: int
    max_batch_size: int
    max_waiting: int
    steps_per_second: float
    audio_seconds_per_second: float
    device: str
    kv_reserved_bytes: int
    kv_limit_bytes: int
    loaded_models: tuple[str, ...] = ()
    """Names in alphabetical order."""
    requests: tuple[RequestStatus, ...] = ()
    """The requests that run and those that wait, oldest first; at most 1000."""


def describe_requests(sequences: Iterable[Sequence], now: float) -> tuple[RequestStatus, ...]:
    """Returns the status of the oldest requests, oldest first. `now` is by the engine's clock."""
    oldest = sorted(sequences, key=lambda sequence: sequence.submitted_at)[:MAX_REQUESTS]
    return tuple(
        RequestStatus(
            generation_id=sequence.generation_id,
            client=sequence.client,
            model_name=sequence.info.name,
            stage=sequence.stage,
            frames=sequence.frames_delivered,
            expected_frames=sequence.parameters.frames,
            sample_rate_hz=sequence.info.sample_rate_hz,
            age_seconds=now - sequence.submitted_at,
        )
        for sequence in oldest
    )
