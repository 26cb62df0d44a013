"""What goes wrong in the simulated fleet: workers, hosts, a zone, the database; and rolling upgrades."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import simpy

from benchmarks.fleet_workers import Worker

if TYPE_CHECKING:
    from benchmarks.fleet_simulation import FleetSimulation

ZONES = 3


def start_faults(simulation: FleetSimulation) -> None:
    """Schedules everything that the scenario says."""
    faults, env = simulation.scenario.faults, simulation.env
    hosts: dict[int, list[Worker]] = {}
    for worker in simulation.workers:
        hosts.setdefault(worker.host, []).append(worker)
    if faults.gpu_mtbf:
        env.process(_break_gpus(simulation))
    for at, host in faults.host_failures:
        simulation.later(at, _lose_all, simulation, hosts.get(host, []), faults.gpu_repair)
    if faults.zone_failure is not None:
        at, seconds = faults.zone_failure
        zone = [worker for host, workers in hosts.items() if host % ZONES == 0 for worker in workers]
        simulation.later(at, _lose_all, simulation, zone, seconds)
    if faults.upgrade_at:
        env.process(_upgrade(simulation, list(hosts.values())))
    if faults.database_failover is not None:
        at, seconds = faults.database_failover
        simulation.later(at, simulation.control.postgres.block, at + seconds)


def _break_gpus(simulation: FleetSimulation) -> Iterable[simpy.Event]:
    draw, faults = random.Random(simulation.scenario.seed + 1), simulation.scenario.faults
    while True:
        yield simulation.env.timeout(draw.expovariate(len(simulation.workers) / faults.gpu_mtbf))
        _lose_all(simulation, [draw.choice(simulation.workers)], faults.gpu_repair)


def _lose_all(simulation: FleetSimulation, workers: Sequence[Worker], repair_seconds: float) -> None:
    for worker in workers:
        if worker.is_alive:
            simulation.lose(worker)
            simulation.later(simulation.env.now + repair_seconds, _repair, simulation, worker)


def _repair(simulation: FleetSimulation, worker: Worker) -> None:
    worker.is_alive = True
    simulation.offer(worker)


def _upgrade(simulation: FleetSimulation, hosts: Sequence[list[Worker]]) -> Iterator[simpy.Event]:
    """Restarts the workers, some hosts at a time: no more claims, the grace, what remains is handed back."""
    faults, env = simulation.scenario.faults, simulation.env
    yield env.timeout(max(0.0, faults.upgrade_at - env.now))
    for first in range(0, len(hosts), faults.upgrade_hosts):
        workers = [worker for host in hosts[first : first + faults.upgrade_hosts] for worker in host]
        for worker in workers:
            worker.is_draining = True
        yield env.timeout(simulation.fleet.grace_seconds)
        for worker in workers:
            for job in list(worker.jobs):
                simulation.hand_back(worker, job)
        yield env.timeout(faults.restart)
        for worker in workers:
            worker.is_draining = False
            simulation.offer(worker)
