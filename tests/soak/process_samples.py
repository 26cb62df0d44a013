"""Memory, threads and open files of the processes during a soak, and whether they stay flat."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from tests.soak.cluster import Cluster
from tests.soak.violation import Violation

PERIOD_SECONDS = 1.0
MIN_SAMPLES = 150
"""A shorter soak says nothing of what piles up: it is over when all has been used for the first time."""
MAX_GROWTH_BYTES = 48 << 20
MAX_GROWTH_THREADS = 24
MAX_GROWTH_FILES = 64
"""How much more a service may have at most in the last third of a soak than in the second, over all its processes."""


@dataclass(frozen=True)
class Sample:
    """What one service had at one moment."""

    at: float
    memory_bytes: int
    threads: int
    files: int


@dataclass
class Samples:
    """The samples of all services."""

    of: dict[str, list[Sample]] = field(default_factory=dict)

    async def collect(self, cluster: Cluster) -> None:
        """Samples all processes from time to time until it is cancelled."""
        while True:
            for name, process in list(cluster.services.running.items()):
                with suppress(psutil.Error):
                    sample = Sample(
                        time.monotonic(),
                        process.memory_bytes(),
                        process.thread_count(),
                        process.file_descriptor_count(),
                    )
                    self.of.setdefault(name, []).append(sample)
            await asyncio.sleep(PERIOD_SECONDS)

    def peaks(self, name: str) -> tuple[Sample, Sample]:
        """Returns the peaks of the second and of the last third; in the first one, all is used for the first time."""
        samples = self.of[name]
        third = max(1, len(samples) // 3)
        second, last = (
            Sample(
                part[-1].at,
                max(one.memory_bytes for one in part),
                max(one.threads for one in part),
                max(one.files for one in part),
            )
            for part in (samples[-2 * third : -third] or samples, samples[-third:])
        )
        return second, last

    def find_growth(self) -> list[Violation]:
        """Returns what has grown beyond its bound."""
        found = []
        for name in self.of:
            if len(self.of[name]) < MIN_SAMPLES:
                continue
            first, second = self.peaks(name)
            for what, bound in (
                ("memory_bytes", MAX_GROWTH_BYTES),
                ("threads", MAX_GROWTH_THREADS),
                ("files", MAX_GROWTH_FILES),
            ):
                before, after = getattr(first, what), getattr(second, what)
                if after - before > bound:
                    found.append(Violation(f"{what} grow", name, f"from {before} to {after} at most"))
        return found

    def summary(self) -> list[str]:
        """Returns a line for each service."""
        lines = []
        for name in self.of:
            first, second = self.peaks(name)
            lines.append(
                f"{name}: memory {first.memory_bytes >> 20} → {second.memory_bytes >> 20} MiB, "
                f"threads {first.threads} → {second.threads}, files {first.files} → {second.files}"
            )
        return lines
