"""`benchmarks.fleet` simulates what no test can run. What must hold in any fleet is tested: no job is lost, nothing is
counted twice, the same seed gives the same figures, and where there is a theory, they agree with it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.fleet_counts import Counts, all_waits, quantiles
from benchmarks.fleet_jobs import FairQueue, Job
from benchmarks.fleet_model import (
    FREE,
    MEASURED,
    Burst,
    Faults,
    Fleet,
    Load,
    OperationCosts,
    Scenario,
    ServedModel,
    Speed,
)
from benchmarks.fleet_simulation import FleetSimulation
from benchmarks.fleet_theory import mean_wait, shared_sojourn, wait_quantile

SECOND_PER_SECOND = Speed(fixed=0.02, per_request=0.0, slots=1)
"""One request at a time, in real time."""


def run(scenario: Scenario) -> Counts:
    return FleetSimulation(scenario).run()


def queueing_system(speed: Speed, gpus: int, jobs_per_second: float, *lengths: float, seconds: float) -> Scenario:
    """Poisson arrivals at GPUs, without costs of any operation. One length means an exponential distribution."""
    model = ServedModel("any", speed, gpus, 1.0, lengths)
    load = Load(jobs_per_second * 86_400, amplitude=0.0, clients=1, priorities=(0,))
    fleet = Fleet((model,), max_pending=10**9, max_pending_per_client=10**9)
    return Scenario(fleet, load, FREE, seconds=seconds)


def test_waits_are_those_of_erlang() -> None:
    """M/M/c: 3 servers, 70 % busy."""
    waits = all_waits(run(queueing_system(SECOND_PER_SECOND, 3, 2.1, 1.0, seconds=12_000)))
    assert sum(waits) / len(waits) == pytest.approx(mean_wait(3, 2.1, 1.0), rel=0.1)
    assert quantiles(waits, 0.95)[0] == pytest.approx(wait_quantile(3, 2.1, 1.0, 0.95), rel=0.1)
    assert wait_quantile(1, 0.5, 1.0, 0.5) == 0.0  # Half of all find the server free.


@pytest.mark.parametrize("lengths", [(1.0,), (0.5, 1.5)])
def test_a_shared_batch_takes_as_long_as_processor_sharing(lengths: tuple[float, ...]) -> None:
    """M/G/1-PS: a step takes as long as the batch is large, and the distribution of lengths plays no part."""
    seconds = 10_000.0
    counts = run(queueing_system(Speed(0.0, 0.02, slots=1000), 1, 0.5, *lengths, seconds=seconds))
    sojourn = counts.in_system.total / counts.events["completed"]
    assert sojourn == pytest.approx(shared_sojourn(0.5, 1.0), rel=0.1)


@pytest.fixture(scope="module")
def broken() -> FleetSimulation:
    """A small fleet in which everything breaks that can, until its last job has ended."""
    small, large = Speed(0.01, 0.005, slots=4), Speed(0.04, 0.01, slots=2)
    models = ServedModel("small", small, 9, 0.7), ServedModel("large", large, 9, 0.3)
    load = Load(30_000, weights=(1.0, 4.0), bursts=(Burst(36_300.0, 200, client=7, priority=-1),), clients=50)
    faults = Faults(
        gpu_mtbf=4_000.0,
        gpu_repair=60.0,
        host_failures=((36_500.0, 1),),
        zone_failure=(37_000.0, 300.0),
        upgrade_at=37_600.0,
        upgrade_hosts=1,
        database_failover=(38_400.0, 20.0),
    )
    fleet = Fleet(models, gpus_per_host=3, max_pending=150)
    slow_upload = replace(MEASURED, object_put_seconds=5.0)  # So that jobs are handed back meanwhile, too.
    simulation = FleetSimulation(
        Scenario(fleet, load, slow_upload, faults, 36_000.0, 3_000.0, drains=True, preempts_after=5.0)
    )
    simulation.run()
    return simulation


def test_measured_costs_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(asdict(replace(MEASURED, claims_woken=None))))
    assert OperationCosts.read_json(path) == replace(MEASURED, claims_woken=None)


def test_no_job_is_lost(broken: FleetSimulation) -> None:
    events = broken.counts.events
    assert events["asked"] == events["create"] + events["refused"]
    assert events["create"] == events["completed"] + events["failed"]
    assert not any(broken.queues)
    assert not any(worker.jobs or worker.batch.count for worker in broken.workers)
    assert broken.counts.running.value == broken.counts.busy.value == 0
    assert broken.counts.used.value == pytest.approx(0)
    assert not any(broken.queued_by_client.values())
    seen = ("worker_lost", "lease_expired", "handed_back", "preempted", "refused")
    assert all(events[name] for name in seen), events


def test_each_attempt_is_claimed_once(broken: FleetSimulation) -> None:
    events = broken.counts.events
    assert events["claim"] == events["completed"] + events["failed"] + events["requeued"]


def test_littles_law(broken: FleetSimulation) -> None:
    """The jobs that are in the system at a time, over time, are as many as come, times how long they stay."""
    assert broken.counts.in_system.total == pytest.approx(broken.counts.seconds_in_system, rel=1e-9)


def test_the_same_seed_gives_the_same(broken: FleetSimulation) -> None:
    again = FleetSimulation(broken.scenario)
    assert again.run().events == broken.counts.events
    assert all_waits(again.counts) == all_waits(broken.counts)
    other = run(replace(broken.scenario, seed=2))
    assert other.events != broken.counts.events


def test_shares_follow_the_weights() -> None:
    """Two clients that always have jobs queued share the GPU's time as their weights say."""
    queue, served = FairQueue((1.0, 3.0)), [0, 0]
    for number in range(400):
        queue.enter(0.0, Job(number, number % 2, 0, 0, 10.0, 0.0))
    for _ in range(200):
        served[queue.pop().client] += 1
    assert served[1] / served[0] == pytest.approx(3, rel=0.1)


def test_a_herd_costs_a_transaction_for_each_that_waits() -> None:
    few = run(queueing_system(SECOND_PER_SECOND, 40, 1.0, 1.0, seconds=200))
    all_woken = queueing_system(SECOND_PER_SECOND, 40, 1.0, 1.0, seconds=200)
    many = run(replace(all_woken, costs=replace(FREE, claims_woken=None)))
    assert few.events["completed"] == many.events["completed"]
    assert many.events["claim_in_vain"] > 10 * few.events["claim_in_vain"] > 0


def test_renewals_alone_can_saturate_storage() -> None:
    """Jobs that are so slow that their leases are renewed more often than storage can: waits grow, and it is said."""
    slow = queueing_system(Speed(0.2, 0.0, slots=1), 1_000, 30.0, 30.0, seconds=60)
    counts = run(replace(slow, costs=MEASURED))
    assert counts.saturated_seconds > 30
    assert run(replace(slow, costs=FREE)).saturated_seconds == 0
