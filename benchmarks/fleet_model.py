"""What `benchmarks.fleet` simulates: the fleet, the load, what fails, and what each operation costs.

Costs of operations were measured by `benchmarks.fleet_costs` on the machine that docs/scale.md names. Speeds of GPUs
are computed by `benchmarks.engine_simulation_costs`: assumptions, until a GPU has confirmed them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from benchmarks.engine_simulation_costs import FRAME_RATE_HZ, GB10, H100, H200, LARGE, MEDIUM, SMALL, Costs, Device

DAY_SECONDS, HOUR_SECONDS = 86_400.0, 3_600.0
DEVICES = {"h200": H200, "h100": H100, "gb10": GB10}
_FITTED_BATCHES = 1, 64
_MEAN_POSITION = 750
"""Of the requests in a batch, each of 30 s."""


@dataclass(frozen=True, slots=True)
class OperationCost:
    """One operation of storage."""

    storage_seconds: float
    """CPU of a storage server, whose Python runs on one core."""
    postgres_seconds: float
    """CPU of Postgres."""


@dataclass(frozen=True, slots=True)
class OperationCosts:
    """Seconds of CPU for each operation, with both ends of its gRPC call where there is one."""

    create: OperationCost
    claim: OperationCost
    claim_in_vain: OperationCost
    renew: OperationCost
    complete: OperationCost
    read: OperationCost
    received_seconds: float
    """CPU of a storage server for each change that another one announces."""
    export_seconds_per_audio_second: float
    """CPU of export: receiving, measuring, mastering, analysing and writing."""
    export_seconds_per_stream_second: float
    """CPU of export for one listener, per second of audio."""
    gateway_seconds_per_stream_second: float
    """CPU of the gateway for one listener, per second of audio."""
    gateway_call_seconds: float
    """CPU of the gateway for one unary call."""
    object_put_seconds: float
    """How long the upload of a file takes."""
    claims_woken: int | None = 1
    """Claims that a claimable generation wakes on each storage server; None: all that wait for its model."""

    @classmethod
    def read_json(cls, path: Path) -> OperationCosts:
        """Reads what `benchmarks.fleet_costs --json` wrote."""
        values: dict[str, Any] = json.loads(path.read_text())
        nested = {name: OperationCost(**value) for name, value in values.items() if isinstance(value, dict)}
        known = {each.name for each in fields(cls)}
        return cls(**{name: nested.get(name, value) for name, value in values.items() if name in known})


def _milliseconds(storage: float, postgres: float) -> OperationCost:
    return OperationCost(storage / 1e3, postgres / 1e3)


MEASURED = OperationCosts(
    create=_milliseconds(1.87, 0.72),
    claim=_milliseconds(1.30, 0.65),
    claim_in_vain=_milliseconds(1.50, 0.35),
    renew=_milliseconds(1.25, 0.45),
    complete=_milliseconds(2.05, 0.60),
    read=_milliseconds(1.20, 0.35),
    received_seconds=0.1e-3,
    export_seconds_per_audio_second=1 / 300,
    export_seconds_per_stream_second=1.2e-3,
    gateway_seconds_per_stream_second=1.5e-3,
    gateway_call_seconds=0.5e-3,
    object_put_seconds=0.2,
)
"""By `make bench-fleet` on 2 cores (AMD EPYC, virtual), as docs/scale.md says; export by `make bench-export`."""

FREE = OperationCosts(
    *(OperationCost(0.0, 0.0) for _ in range(6)),
    received_seconds=0.0,
    export_seconds_per_audio_second=0.0,
    export_seconds_per_stream_second=0.0,
    gateway_seconds_per_stream_second=0.0,
    gateway_call_seconds=0.0,
    object_put_seconds=0.0,
)
"""For comparison with theory, which knows no control plane."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one GPU generates with one model. A decode step of a batch takes `fixed + batch * per_request`."""

    fixed: float
    per_request: float
    slots: int
    """Places in the batch."""
    frame_rate_hz: float = FRAME_RATE_HZ

    def rate(self, batch: int) -> float:
        """Seconds of audio per second, of each request in a batch."""
        return 1 / (self.frame_rate_hz * (self.fixed + self.per_request * batch)) if batch else 0.0

    @property
    def capacity(self) -> float:
        """Seconds of audio per second with a full batch."""
        return self.slots * self.rate(self.slots)

    @classmethod
    def predict(cls, costs: Costs, slots: int = 64) -> Speed:
        """Fits the two constants to the predicted steps of a batch of 1 and of 64, EnCodec's work included."""
        small, large = (
            costs.step(batch * _MEAN_POSITION, batch) + costs.decode_busy(batch) for batch in _FITTED_BATCHES
        )
        per_request = (large - small) / (_FITTED_BATCHES[1] - _FITTED_BATCHES[0])
        return cls(small - per_request, per_request, slots)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model, the GPUs that serve it, and its share of the jobs."""

    name: str
    speed: Speed
    gpus: int
    share: float
    seconds: tuple[float, ...] = (8.0, 16.0, 30.0, 60.0)
    """The lengths that jobs have, equally often. A single one is the mean of an exponential distribution."""

    @property
    def mean_seconds(self) -> float:
        return sum(self.seconds) / len(self.seconds)


@dataclass(frozen=True, slots=True)
class Burst:
    """One client queues many jobs at once, as with a file of prompts."""

    at: float
    jobs: int
    client: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """The jobs that come."""

    jobs_per_day: float
    amplitude: float = 0.8
    """The rate follows the hour of the day: `1 - amplitude` of the mean at 3 o'clock, `1 + amplitude` at 15."""
    clients: int = 10_000
    """Their shares follow Zipf's law."""
    weights: tuple[float, ...] = (1.0,)
    """Of the clients, in turns."""
    priorities: tuple[int, ...] = (0, 0, 0, 0, 0, 0, 0, 0, 0, 5)
    """Of the jobs, equally often."""
    bursts: tuple[Burst, ...] = ()
    listened: float = 0.3
    """The share of the jobs that somebody listens to in full while they are generated."""
    watchers: float = 1.0
    """Callers of WatchGeneration per job."""
    downloads: float = 1.0
    """Per job."""
    bytes_per_second: float = 192_000.0
    """Of a file: 32 kHz, stereo, 24 bits."""


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. Times are in seconds; 0 means never."""

    gpu_mtbf: float = 0.0
    """Mean time between failures of one worker."""
    gpu_repair: float = 600.0
    host_failures: tuple[tuple[float, int], ...] = ()
    """When, and which host. It is away for `gpu_repair`."""
    zone_failure: tuple[float, float] | None = None
    """When a third of the hosts is cut off, and for how long."""
    upgrade_at: float = 0.0
    """When a rolling upgrade of the workers begins, host by host."""
    upgrade_hosts: int = 4
    """Hosts that are upgraded at a time."""
    restart: float = 60.0
    """From the end of a worker's process until the next one has loaded its model."""
    database_failover: tuple[float, float] | None = None
    """When Postgres is lost, and after how many seconds its replica answers."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The servers. A host has `gpus_per_host` workers; each worker has one GPU and one model."""

    models: tuple[ServedModel, ...]
    storage_servers: int = 3
    postgres_cores: int = 8
    export_servers: int = 2
    export_cores: int = 8
    """Of each export server."""
    gateways: int = 2
    gpus_per_host: int = 8
    lease_seconds: float = 30.0
    renew_seconds: float = 0.5
    poll_seconds: float = 5.0
    grace_seconds: float = 10.0
    max_attempts: int = 3
    max_pending: int = 50_000
    max_pending_per_client: int = 5_000
    part_bytes: int = 16 << 20
    """Of a multipart upload, which is what files of more than two parts take."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that a simulation depends on."""

    fleet: Fleet
    load: Load
    costs: OperationCosts = MEASURED
    faults: Faults = field(default_factory=Faults)
    begins_at: float = 0.0
    """Seconds since midnight."""
    seconds: float = DAY_SECONDS
    drains: bool = False
    """Whether the simulation goes on until all jobs have ended, after the last has come."""
    preempts_after: float = 0.0
    """How long a job of a higher priority waits before it takes a place; 0: for ever."""
    checkpoints: bool = True
    """Whether a job that was handed back goes on from where it was."""
    seed: int = 1

    def with_load(self, multiple: float) -> Scenario:
        """The same with so many times the jobs."""
        return replace(self, load=replace(self.load, jobs_per_day=self.load.jobs_per_day * multiple))


SHAPES = {"musicgen-small": (SMALL, 0.60), "musicgen-medium": (MEDIUM, 0.25), "musicgen-large": (LARGE, 0.15)}
"""Models and their shares of the jobs: an assumption."""


def build_fleet(device: Device, gpus: int, slots: int = 64, **others: Any) -> Fleet:
    """Divides the GPUs among the models by what their jobs need."""
    speeds = {name: Speed.predict(Costs(device, shape), slots) for name, (shape, _) in SHAPES.items()}
    needs = {name: share / speeds[name].capacity for name, (_, share) in SHAPES.items()}
    counts = {name: max(1, round(gpus * need / sum(needs.values()))) for name, need in needs.items()}
    models = tuple(ServedModel(name, speeds[name], counts[name], share) for name, (_, share) in SHAPES.items())
    return Fleet(models, **others)
