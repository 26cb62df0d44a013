"""What the simulation counts: how often each thing happened in each hour, and how long jobs waited."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np

from benchmarks.fleet_model import HOUR_SECONDS


class Integral:
    """A quantity over time, by hour."""

    def __init__(self, begins_at: float) -> None:
        self.value = 0.0
        self._updated_at = begins_at
        self.by_hour: defaultdict[int, float] = defaultdict(float)

    def add(self, now: float, change: float) -> None:
        """Changes the quantity from now on."""
        self.advance(now)
        self.value += change

    def advance(self, now: float) -> None:
        at = self._updated_at
        if now <= at:
            return
        hour = int(at // HOUR_SECONDS)
        while now > (end := (hour + 1) * HOUR_SECONDS):
            self.by_hour[hour] += self.value * (end - at)
            at, hour = end, hour + 1
        self.by_hour[hour] += self.value * (now - at)
        self._updated_at = now

    @property
    def total(self) -> float:
        return sum(self.by_hour.values())


@dataclass
class Counts:
    """Counted while the simulation runs."""

    begins_at: float
    events: Counter[str] = field(default_factory=Counter)
    waits: defaultdict[int, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    """By hour of creation: seconds from there to the first claim."""
    waits_by_priority: defaultdict[int, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    claim_seconds: array[float] = field(default_factory=lambda: array("d"))
    """How long claims took in the control plane."""
    audio_by_client: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))
    """Seconds of audio completed."""
    regenerated_seconds: float = 0.0
    """Audio that was generated in vain."""
    saturated_seconds: float = 0.0
    """In which the renewals alone took all of storage or of Postgres: there, leases would expire."""
    seconds_in_system: float = 0.0
    """Of all jobs that have ended, from being asked for to their end."""

    def __post_init__(self) -> None:
        self.in_system = Integral(self.begins_at)
        """Jobs that are created and have not ended."""
        self.running = Integral(self.begins_at)
        """Jobs whose lease is renewed."""
        self.busy = Integral(self.begins_at)
        """GPUs that generate something."""
        self.used = Integral(self.begins_at)
        """GPUs' worth of full batches: each GPU's audio per second, divided by what it makes with a full batch."""
        self.idle_claims = Integral(self.begins_at)
        """Workers that wait for work."""

    def advance(self, now: float) -> None:
        """Brings all integrals up to date."""
        for integral in (self.in_system, self.running, self.busy, self.used, self.idle_claims):
            integral.advance(now)


def quantiles(values: array[float], *wanted: float) -> tuple[float, ...]:
    """Returns quantiles; zeros of nothing."""
    return tuple(map(float, np.quantile(values, wanted))) if values else tuple(0.0 for _ in wanted)


def all_waits(counts: Counts) -> array[float]:
    """The waits of all hours."""
    merged: array[float] = array("d")
    for waits in counts.waits.values():
        merged.extend(waits)
    return merged
