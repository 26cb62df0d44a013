"""The workers of the simulated fleet: one process on one GPU each."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.fleet_jobs import Job
from benchmarks.fleet_model import Fleet
from benchmarks.fleet_stations import Batch


@dataclass(slots=True, eq=False)
class Worker:
    """A process that claims jobs of one model."""

    number: int
    host: int
    model: int
    slots: int
    batch: Batch
    jobs: dict[Job, None] = field(default_factory=dict)
    """Those that it has the leases of; also those that export masters."""
    is_alive: bool = True
    is_draining: bool = False
    is_waiting: bool = False
    """Whether its claim waits for work."""
    is_claiming: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it can claim."""
        return self.is_alive and not self.is_draining and len(self.jobs) < self.slots


def build_workers(fleet: Fleet) -> list[Worker]:
    """Builds one worker for each GPU, host by host."""
    models = [index for index, model in enumerate(fleet.models) for _ in range(model.gpus)]
    return [
        Worker(number, number // fleet.gpus_per_host, model, fleet.models[model].speed.slots, Batch(speed))
        for number, model in enumerate(models)
        for speed in [fleet.models[model].speed]
    ]
