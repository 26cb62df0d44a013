"""The jobs of the simulated fleet: when they come, and in which order they are claimed."""

from __future__ import annotations

import heapq
import math
import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

from benchmarks.fleet_model import DAY_SECONDS, Scenario

SECONDS_PER_PRIORITY_LEVEL = 600.0
"""As in storage_service/domain/queue.py, whose ranks these are."""
_QUIETEST_SECONDS = 3 * 3600.0


@dataclass(slots=True, eq=False)
class Job:
    """One generation."""

    number: int
    client: int
    model: int
    priority: int
    seconds: float
    arrives_at: float
    rank: float = 0.0
    created_at: float = 0.0
    queued_at: float = 0.0
    """When it last entered the queue."""
    claimed_at: float | None = None
    """When it was first claimed."""
    started_at: float = 0.0
    ended_at: float | None = None
    attempts: int = 0
    handed_back: int = 0
    lease: int = 0
    """The number of the lease; what happens under an earlier one is void."""
    remaining_seconds: float = 0.0
    """Audio that is still to be generated."""
    batch_end: float = 0.0
    is_generating: bool = False


def rate(scenario: Scenario, at: float) -> float:
    """Jobs per second at a time of the day."""
    load = scenario.load
    phase = 2 * math.pi * (at - _QUIETEST_SECONDS) / DAY_SECONDS
    return load.jobs_per_day / DAY_SECONDS * (1 - load.amplitude * math.cos(phase))


def arrivals(scenario: Scenario) -> Iterator[Job]:
    """Yields the jobs in the order of time: Poisson arrivals by thinning (Lewis, Shedler 1979), and the bursts."""
    draw = random.Random(scenario.seed)
    load, models = scenario.load, scenario.fleet.models
    shares = list(accumulate(model.share for model in models))
    clients = list(accumulate(1 / number for number in range(1, load.clients + 1)))
    highest = load.jobs_per_day / DAY_SECONDS * (1 + load.amplitude)
    bursts = sorted(load.bursts, key=lambda burst: burst.at)
    number, at, end = 0, scenario.begins_at, scenario.begins_at + scenario.seconds

    def build(at: float, client: int, priority: int) -> Job:
        model = min(bisect(shares, draw.random() * shares[-1]), len(models) - 1)
        lengths = models[model].seconds
        seconds = draw.choice(lengths) if len(lengths) > 1 else draw.expovariate(1 / lengths[0])
        return Job(number, client, model, priority, seconds, at, remaining_seconds=seconds)

    while True:
        at = at + draw.expovariate(highest) if highest else end
        while bursts and bursts[0].at <= min(at, end):
            burst = bursts.pop(0)
            for _ in range(burst.jobs):
                yield build(max(burst.at, scenario.begins_at), burst.client, burst.priority)
                number += 1
        if at >= end:
            return
        if draw.random() * highest <= rate(scenario, at):
            yield build(at, bisect(clients, draw.random() * clients[-1]), draw.choice(load.priorities))
            number += 1


@dataclass
class FairQueue:
    """The queue of one model: start-time fair queueing over clients, as storage ranks generations.

    A client's jobs follow one another at a distance of their seconds by its weight; a priority is worth 600 s.
    """

    weights: tuple[float, ...]
    heap: list[tuple[float, float, int, Job]] = field(default_factory=list)
    _last: dict[tuple[int, int], float] = field(default_factory=dict)
    """Client and priority → the end of its last job."""
    _virtual_time: float = 0.0

    def __len__(self) -> int:
        return len(self.heap)

    def enter(self, now: float, job: Job) -> None:
        """Queues a new job, and gives it its rank."""
        rank = self._time(now) - SECONDS_PER_PRIORITY_LEVEL * job.priority
        rank = max(rank, self._last.get((job.client, job.priority), -math.inf))
        job.rank = rank
        self._last[job.client, job.priority] = rank + job.seconds / self.weights[job.client % len(self.weights)]
        self.enter_again(now, job)

    def enter_again(self, now: float, job: Job) -> None:
        """Queues a job that keeps its rank."""
        job.queued_at = now
        heapq.heappush(self.heap, (job.rank, job.created_at, job.number, job))

    def first(self) -> Job | None:
        return self.heap[0][3] if self.heap else None

    def pop(self) -> Job:
        """Takes the first one, which is claimed: service has arrived at its middle."""
        job = heapq.heappop(self.heap)[3]
        start = job.rank + SECONDS_PER_PRIORITY_LEVEL * job.priority
        self._virtual_time = max(self._virtual_time, start + job.seconds / 2)
        return job

    def _time(self, now: float) -> float:
        if not self.heap:  # What was queued has been served; nobody's past counts.
            self._last.clear()
            self._virtual_time = max(self._virtual_time, now)
        return self._virtual_time
