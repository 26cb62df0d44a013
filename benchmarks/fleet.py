"""Simulates a fleet of a thousand GPUs, and says what saturates first: `make bench-fleet`.

    python -m benchmarks.fleet [--gpu h200|h100|gb10] [--gpus 1000] [--jobs-per-day 1000000] [--multiples 1,10,100]
        [--costs costs.json] [--only day,scale,faults] [--seed 1]

The costs of operations are measured by `benchmarks.fleet_costs`; the speeds of GPUs are computed, which no GPU has
confirmed; the load is an assumption. The same seed gives the same figures. Prints Markdown; docs/scale.md says what
follows from it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from benchmarks.fleet_counts import Counts, all_waits, quantiles
from benchmarks.fleet_demand import MAX_CONNECTIONS, demand_of, shares
from benchmarks.fleet_model import (
    DEVICES,
    FREE,
    HOUR_SECONDS,
    MEASURED,
    Burst,
    Faults,
    Fleet,
    Load,
    OperationCosts,
    Scenario,
    build_fleet,
)
from benchmarks.fleet_simulation import FleetSimulation
from benchmarks.fleet_tables import print_table

PEAK_SECONDS = 15 * HOUR_SECONDS
WARM_UP_JOBS = 150_000
"""Jobs of a run at a multiple of the load."""
EVERY_HOURS = 3
BUSY_FLEET = "gb10", 48
"""Just enough for the peak of 10⁶ jobs a day."""
TARGET = 0.6
"""How much of each part may be used: beyond, waits grow steeply."""


def run(scenario: Scenario) -> Counts:
    return FleetSimulation(scenario).run()


def _seconds(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 100 else f"{value:,.0f} s"


def print_day(scenario: Scenario, minutes: float) -> None:
    """Some minutes of every third hour of a day, each from an empty fleet."""
    fleet, seconds = scenario.fleet, minutes * 60
    gpus, lost, rows = sum(model.gpus for model in fleet.models), 0, []
    for hour in range(0, 24, EVERY_HOURS):
        counts = run(replace(scenario, begins_at=hour * HOUR_SECONDS, seconds=seconds, drains=True))
        events, waits = counts.events, all_waits(counts)
        lost += events["create"] - events["completed"] - events["failed"]
        rows.append(
            (
                f"{hour}:00",
                f"{events['create'] / seconds:.1f}",
                *map(_seconds, quantiles(waits, 0.5, 0.95, 0.99)),
                f"{counts.busy.total / seconds / gpus:.1%}",
                f"{counts.used.total / seconds / gpus:.2%}",
                f"{counts.running.total / seconds / fleet.renew_seconds:,.0f}",
            )
        )
    print_table(
        ("Hour", "claims/s", "wait p50", "p95", "p99", "GPUs that run", "of their capacity", "renewals/s"), rows
    )
    print(f"\nOf these jobs, {lost} neither completed nor failed.")


def print_scale(scenario: Scenario, multiples: Iterable[float]) -> None:
    """What is asked of each part at the peak of the day, at multiples of the load; and what waits result."""
    rates, used, waits = {}, {}, []
    for multiple in multiples:
        seconds = max(60.0, min(HOUR_SECONDS / 4, WARM_UP_JOBS / (scenario.load.jobs_per_day * multiple / 43_200)))
        peak = replace(scenario.with_load(multiple), begins_at=PEAK_SECONDS - seconds / 2, seconds=seconds)
        # Without costs nothing is ever late, so that all of the load is there to be counted.
        demand = demand_of(peak, run(replace(peak, costs=replace(FREE, claims_woken=peak.costs.claims_woken))))
        rates[multiple], used[multiple] = demand, shares(peak, demand, peak.costs)
        cells, enough = _sized(peak, used[multiple])
        for count, each in ((1, peak), (cells, enough)):
            counts = run(each)
            p50, p99 = quantiles(all_waits(counts), 0.5, 0.99)
            claim = quantiles(counts.claim_seconds, 0.99)[0]
            servers = f"{count} × {each.fleet.storage_servers}"
            saturated = counts.saturated_seconds / seconds
            late = counts.in_system.value / max(1, counts.events["create"])
            row = f"×{multiple:g}", servers, *map(_seconds, (p50, p99, claim)), f"{saturated:.0%}", f"{late:.0%}"
            waits.append(row)
            if enough == peak:
                break
    names = {
        "jobs created": "creates",
        "claims": "claims",
        "claims in vain": "claims_in_vain",
        "renewals": "renewals",
        "watchers' reads": "reads",
        "changes announced": "changes",
        "transactions": "transactions",
        "objects put (requests)": "object_puts",
        "objects read": "object_gets",
        "objects listed by prefix": "object_lists",
    }
    heads = [f"×{multiple:g}" for multiple in rates]
    rows = [(name, *(f"{getattr(rates[each], field):,.0f}" for each in rates)) for name, field in names.items()]
    rows.append(("MB to and from objects", *(f"{rates[each].object_bytes / 1e6:,.0f}" for each in rates)))
    rows.append(("jobs that run, at a time", *(f"{rates[each].running:,.0f}" for each in rates)))
    rows.append(("listeners, at a time", *(f"{rates[each].listeners:,.0f}" for each in rates)))
    print_table(("At the peak, a second", *heads), rows)
    first = min(used)
    parts = sorted(used[first], key=lambda part: -used[first][part])
    rows = []
    for part in parts:
        full = f"{MAX_CONNECTIONS:,} workers" if "connections" in part else f"×{first / used[first][part]:.3g}"
        rows.append((part, *(f"{used[each][part]:.1%}" for each in used), full))
    print_table(("Used at the peak", *heads, "full at"), rows)
    print_table(
        ("Load", "cells × storage servers", "wait p50", "p99", "claim p99", "saturated", "not done at the end"), waits
    )


def _sized(peak: Scenario, used: dict[str, float]) -> tuple[int, Scenario]:
    """Returns how many cells of the fleet, each with a Postgres of its own, keep everything below 60 %; and one of them
    with as many storage and export servers as that takes."""
    storage, postgres, others, export, *_ = used.values()
    if max(storage, postgres, others, export) <= TARGET:
        return 1, peak
    cells = max(1, math.ceil(max(postgres, others) / TARGET))
    total = sum(model.gpus for model in peak.fleet.models)
    fleet = replace(
        gpus_reduced(peak.fleet, total // cells),
        storage_servers=math.ceil(peak.fleet.storage_servers * storage / TARGET / cells),
        export_servers=math.ceil(peak.fleet.export_servers * export / TARGET / cells),
    )
    return cells, replace(peak.with_load(1 / cells), fleet=fleet)


def print_faults(scenario: Scenario) -> None:
    """A fleet that is just large enough, in a bad hour: with and without checkpoints and preemption."""
    device, gpus = BUSY_FLEET
    begins_at = PEAK_SECONDS - HOUR_SECONDS / 2
    busy = replace(
        scenario,
        fleet=replace(build_fleet(DEVICES[device], gpus), gpus_per_host=1, storage_servers=8, renew_seconds=2.0),
        load=replace(scenario.load, jobs_per_day=1e6, bursts=(Burst(begins_at + 300, 3_000, client=9_999),)),
        begins_at=begins_at,
        seconds=HOUR_SECONDS,
        drains=True,
    )
    broken = Faults(
        gpu_mtbf=5 * 86_400.0,
        host_failures=((begins_at + 600, 1),),
        zone_failure=(begins_at + 1200, 300.0),
        upgrade_at=begins_at + 2000,
        upgrade_hosts=4,
        database_failover=(begins_at + 3200, 15.0),
    )
    print(f"\n{gpus} × {DEVICES[device].name}, an hour at the peak of 10⁶ jobs a day, and 3,000 jobs of one client;")
    print("leases are renewed every 2 s.")
    rows = []
    for name, each in {
        "nothing breaks, no preemption": busy,
        "faults, no preemption": replace(busy, faults=broken),
        "faults, preemption after 10 s": replace(busy, faults=broken, preempts_after=10.0),
        "the same without checkpoints": replace(busy, faults=broken, preempts_after=10.0, checkpoints=False),
    }.items():
        counts = run(each)
        events = counts.events
        low, high = (quantiles(counts.waits_by_priority[priority], 0.5, 0.95) for priority in (0, 5))
        rows.append(
            (
                name,
                *map(_seconds, (*low, *high)),
                *(f"{events[each]:,}" for each in ("lease_expired", "handed_back", "preempted", "failed")),
                f"{counts.regenerated_seconds:,.0f} s",
                f"{events['create'] - events['completed'] - events['failed']:,}",
            )
        )
    head = "One hour", "priority 0: wait p50", "p95", "priority 5: p50", "p95", "leases expired", "handed back"
    print_table((*head, "of them preempted", "failed", "generated in vain", "lost"), rows)


def gpus_reduced(fleet: Fleet, gpus: int) -> Fleet:
    """The same with so many GPUs, divided among the models as before."""
    total = sum(model.gpus for model in fleet.models)
    models = tuple(replace(model, gpus=max(1, round(model.gpus * gpus / total))) for model in fleet.models)
    return replace(fleet, models=models)


def main() -> None:
    """Simulates what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=sorted(DEVICES), default="h200")
    parser.add_argument("--gpus", type=int, default=1000)
    parser.add_argument("--jobs-per-day", type=float, default=1e6)
    parser.add_argument("--minutes", type=float, default=5.0, help="of every third hour; 180 for a whole day")
    parser.add_argument("--multiples", default="1,10,100")
    parser.add_argument("--storage-servers", type=int, default=3)
    parser.add_argument("--renew-seconds", type=float, default=0.5)
    parser.add_argument("--costs", type=Path, help="what `benchmarks.fleet_costs --json` wrote")
    parser.add_argument("--wakes-all", action="store_true", help="a claimable job wakes every claim that waits")
    parser.add_argument("--only", default="day,scale,faults")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    costs = OperationCosts.read_json(options.costs) if options.costs else MEASURED
    if options.wakes_all:
        costs = replace(costs, claims_woken=None)
    fleet = build_fleet(
        DEVICES[options.gpu],
        options.gpus,
        storage_servers=options.storage_servers,
        renew_seconds=options.renew_seconds,
    )
    scenario = Scenario(fleet, Load(options.jobs_per_day), costs, seed=options.seed)
    names = (f"{model.gpus} for {model.name} ({model.speed.capacity:.0f} audio-s/s each)" for model in fleet.models)
    print(f"{options.gpus:,} × {DEVICES[options.gpu].name}, speeds predicted: {', '.join(names)}. Seed {options.seed}.")
    parts = options.only.split(",")
    if "day" in parts:
        print_day(scenario, options.minutes)
    if "scale" in parts:
        print_scale(scenario, [float(multiple) for multiple in options.multiples.split(",")])
    if "faults" in parts:
        print_faults(scenario)


if __name__ == "__main__":
    main()
