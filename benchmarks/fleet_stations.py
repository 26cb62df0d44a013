"""The servers of the control plane as stations with a queue each, and the batches of the GPUs."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.fleet_model import OperationCost, OperationCosts, Speed

if TYPE_CHECKING:
    from benchmarks.fleet_jobs import Job

_MAX_BACKGROUND = 0.98
"""Of a station's capacity; what remains serves the calls. With more, leases would expire."""


class Station:
    """Servers with one queue. Calls come in the order of time."""

    def __init__(self, servers: int) -> None:
        self._servers = servers
        self._free_at = [0.0] * servers
        self.background = 0.0
        """CPU seconds per second that go to what is not simulated call by call, such as renewals."""
        self.busy = 0.0
        """CPU seconds that calls have taken."""

    @property
    def is_saturated(self) -> bool:
        return self.background > _MAX_BACKGROUND * self._servers

    def serve(self, now: float, demand: float) -> float:
        """Returns when a call has been served that comes now and takes `demand` seconds of CPU."""
        if demand <= 0:
            return max(now, self._free_at[0])
        self.busy += demand
        share = max(1 - self.background / self._servers, 1 - _MAX_BACKGROUND)
        ends_at = max(now, self._free_at[0]) + demand / share
        heapq.heapreplace(self._free_at, ends_at)
        return ends_at

    def block(self, until: float) -> None:
        """No call is served before."""
        self._free_at = [max(free, until) for free in self._free_at]
        heapq.heapify(self._free_at)


class ControlPlane:
    """Storage servers and Postgres: how long each operation takes."""

    def __init__(self, costs: OperationCosts, storage_servers: int, postgres_cores: int) -> None:
        self._costs = costs
        self.storage, self.postgres = Station(storage_servers), Station(postgres_cores)
        self._others = storage_servers - 1
        """Servers that each change is announced to."""

    def call(self, now: float, cost: OperationCost, *, changes: bool) -> float:
        """Returns when an operation is committed that is requested now. `changes`: and announced to the others."""
        announced = self._others * self._costs.received_seconds if changes else 0.0
        return self.postgres.serve(self.storage.serve(now, cost.storage_seconds + announced), cost.postgres_seconds)

    def set_background(self, renewals: float, reads: float, idle_claims: float) -> None:
        """Sets how many of each there are in a second."""
        costs = self._costs
        renewal = costs.renew.storage_seconds + self._others * costs.received_seconds
        self.storage.background = (
            renewals * renewal + reads * costs.read.storage_seconds + idle_claims * costs.claim_in_vain.storage_seconds
        )
        self.postgres.background = (
            renewals * costs.renew.postgres_seconds
            + reads * costs.read.postgres_seconds
            + idle_claims * costs.claim_in_vain.postgres_seconds
        )

    @property
    def is_saturated(self) -> bool:
        return self.storage.is_saturated or self.postgres.is_saturated


@dataclass(slots=True)
class Batch:
    """What one GPU generates: requests share it, each as fast as the others.

    The audio that each has been given since the start is one clock for all; a request ends when that reaches its own.
    """

    speed: Speed
    clock: float = 0.0
    updated_at: float = 0.0
    version: int = 0
    """Of the next end; a timer of an earlier version is void."""
    ends: list[tuple[float, int, Job]] = field(default_factory=list)
    count: int = 0

    def advance(self, now: float) -> None:
        """Generates until now."""
        if self.count:
            self.clock += (now - self.updated_at) * self.speed.rate(self.count)
        self.updated_at = now

    def add(self, now: float, job: Job) -> None:
        self.advance(now)
        job.batch_end = self.clock + job.remaining_seconds
        heapq.heappush(self.ends, (job.batch_end, job.number, job))
        self.count += 1

    def remove(self, now: float, job: Job) -> float:
        """Takes a request out before its end. Returns how much of its audio is missing, in seconds."""
        self.advance(now)
        missing = job.batch_end - self.clock
        self.ends = [entry for entry in self.ends if entry[2] is not job]
        heapq.heapify(self.ends)
        self.count -= 1
        return max(0.0, missing)

    def next_end(self) -> float | None:
        """In how many seconds the first request ends; None if there is none."""
        return max(0.0, self.ends[0][0] - self.clock) / self.speed.rate(self.count) if self.ends else None

    def pop_ended(self, now: float) -> list[Job]:
        self.advance(now)
        ended = []
        while self.ends and self.ends[0][0] <= self.clock + 1e-9:
            ended.append(heapq.heappop(self.ends)[2])
        self.count -= len(ended)
        return ended
