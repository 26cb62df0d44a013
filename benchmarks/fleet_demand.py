"""What a simulated load asks of each part of the fleet, as rates and as shares of what the part can do."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.fleet_counts import Counts
from benchmarks.fleet_model import OperationCost, OperationCosts, Scenario

MAX_CONNECTIONS = 1024
"""The default of DGX_MUSIC_MAX_CONNECTIONS: of each storage server, to which every worker and gateway connects."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Per second, over some time."""

    creates: float
    claims: float
    claims_in_vain: float
    completes: float
    renewals: float
    reads: float
    """By watchers: one for each change."""
    audio_seconds: float
    object_puts: float
    object_gets: float
    object_lists: float
    """One after each upload, which finds a newer attempt."""
    object_bytes: float
    listeners: float
    """Streams of the gateways at a time."""
    running: float
    """Jobs that are leased at a time."""
    gpus_used: float
    """GPUs' worth of full batches."""

    @property
    def changes(self) -> float:
        """Announced to all storage servers."""
        return self.creates + self.claims + self.completes + self.renewals

    @property
    def transactions(self) -> float:
        return self.creates + self.claims + self.claims_in_vain + self.completes + self.renewals + self.reads

    def storage_cores(self, costs: OperationCosts, servers: int) -> float:
        own = sum(rate * cost.storage_seconds for rate, cost in self._operations(costs))
        return own + self.changes * (servers - 1) * costs.received_seconds

    def postgres_cores(self, costs: OperationCosts) -> float:
        return sum(rate * cost.postgres_seconds for rate, cost in self._operations(costs))

    def _operations(self, costs: OperationCosts) -> tuple[tuple[float, OperationCost], ...]:
        return (
            (self.creates, costs.create),
            (self.claims, costs.claim),
            (self.claims_in_vain, costs.claim_in_vain),
            (self.completes, costs.complete),
            (self.renewals, costs.renew),
            (self.reads, costs.read),
        )


def demand_of(scenario: Scenario, counts: Counts) -> Demand:
    """Returns the demand of a simulation, over all of its time."""
    fleet, load, events, seconds = scenario.fleet, scenario.load, counts.events, scenario.seconds
    creates, completes = events["create"] / seconds, events["completed"] / seconds
    running = counts.running.total / seconds
    mean_seconds = sum(model.share * model.mean_seconds for model in fleet.models) / sum(
        model.share for model in fleet.models
    )
    size = mean_seconds * load.bytes_per_second
    puts = events["object_put"] / seconds
    renewals = running / fleet.renew_seconds
    claims = events["claim"] / seconds
    return Demand(
        creates=creates,
        claims=claims,
        claims_in_vain=events["claim_in_vain"] / seconds + counts.idle_claims.total / seconds / fleet.poll_seconds,
        completes=completes + events["fail"] / seconds,
        renewals=renewals,
        reads=load.watchers * (creates + claims + completes + renewals),
        audio_seconds=creates * mean_seconds,
        object_puts=puts,
        object_gets=creates * load.downloads,
        object_lists=completes,
        object_bytes=creates * size * (1 + load.downloads),
        listeners=creates * load.listened * mean_seconds,
        running=running,
        gpus_used=counts.used.total / seconds,
    )


def shares(scenario: Scenario, demand: Demand, costs: OperationCosts) -> dict[str, float]:
    """Returns how much of each part is used: 1 is all of it."""
    fleet = scenario.fleet
    gpus = sum(model.gpus for model in fleet.models)
    calls = demand.creates * (2 + scenario.load.downloads) + demand.reads
    gateway = demand.listeners * costs.gateway_seconds_per_stream_second + calls * costs.gateway_call_seconds
    export = demand.audio_seconds * costs.export_seconds_per_audio_second
    export += demand.listeners * costs.export_seconds_per_stream_second
    return {
        f"{fleet.storage_servers} storage servers, a core each": demand.storage_cores(costs, fleet.storage_servers)
        / fleet.storage_servers,
        f"Postgres, {fleet.postgres_cores} cores": demand.postgres_cores(costs) / fleet.postgres_cores,
        "each storage server by changes of others": demand.changes * costs.received_seconds,
        f"{fleet.export_servers} export servers, {fleet.export_cores} cores each": export
        / (fleet.export_servers * fleet.export_cores),
        f"{fleet.gateways} gateways, a core each": gateway / fleet.gateways,
        "connections of a storage server": (gpus + fleet.gateways) / MAX_CONNECTIONS,
        f"{gpus:,} GPUs": demand.gpus_used / gpus,
    }
