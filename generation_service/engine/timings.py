"""When a request passed each point of its way through the engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Timings:
    """By the monotonic clock, which all processes of a machine share, in seconds; None: it has not happened yet."""

    submitted_at: float = 0.0
    admitted_at: float | None = None
    """When it left the queue, for the last time if it had to return to it."""
    prefill_at: float | None = None
    """When its model was loaded and its prefill began."""
    started_at: float | None = None
    """When it was ready for its first step."""
    first_block_at: float | None = None
    ended_at: float | None = None
    steps: int = 0
    batch_rows: int = 0
    """The sum of the sizes of the batches of its steps."""
