"""A small fleet as it is and as it is simulated: `python -m benchmarks.fleet_small_run`.

    python -m benchmarks.fleet_small_run [--jobs 150] [--models paced,sketch] [--load 0.7]

Real services in processes of their own on a real Postgres: storage, export, and two workers that run one job at a time.
`paced` takes a set time for a step, as if on a GPU; `sketch` computes. First the workers are kept busy, which tells how
many jobs they can do. Then jobs arrive at random. The simulation is told when each job arrived and how long a worker
had it, as on a busy machine equal jobs take unequal times; it has to find out how long each waits.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.engine_simulation_costs import FRAME_RATE_HZ
from benchmarks.fleet_counts import all_waits, quantiles
from benchmarks.fleet_jobs import Job
from benchmarks.fleet_model import FREE, Fleet, Load, Scenario, ServedModel, Speed
from benchmarks.fleet_simulation import FleetSimulation
from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.postgres import postgres_server, scratch_database
from tests.support.service_processes import ServiceProcesses, service_processes

WORKERS = 2
LENGTHS = {"paced": (2.0, 4.0, 8.0), "sketch": (30.0, 60.0, 120.0)}
MODULES = {"paced": "tests.support.paced_server", "sketch": None}
CALIBRATION_JOBS = 24
TIMEOUT_SECONDS = 60.0

Row = tuple[float, float, float, float]
"""A completed generation: its seconds of audio, and when it was created, claimed and completed."""


async def create(services: ServiceProcesses, model: str, seconds: float) -> str:
    """Returns the id of the new generation."""
    request = pb.CreateGenerationRequest(
        prompt="house", model_name=model, duration_seconds=seconds, sample_rate_hz=32000, channels=2
    )
    return (await services.storage.CreateGeneration(request, timeout=TIMEOUT_SECONDS)).generation.id


async def wait_for(services: ServiceProcesses, connection: psycopg.Connection[Any], ids: Sequence[str]) -> list[Row]:
    """Returns the generations once they are completed, and deletes them."""
    for generation_id in ids:
        async for _ in services.storage.WatchGeneration(pb.WatchGenerationRequest(id=generation_id), timeout=600):
            pass
    query = """SELECT duration_seconds, extract(epoch FROM created_at)::float8, extract(epoch FROM started_at)::float8,
        extract(epoch FROM completed_at)::float8 FROM generations WHERE status = 'completed' ORDER BY created_at"""
    rows = connection.execute(query).fetchall()
    assert len(rows) == len(ids)
    connection.execute("DELETE FROM generations")
    return [(float(row[0]), float(row[1]), float(row[2]), float(row[3])) for row in rows]


async def run_small_fleet(folder: Path, model: str, jobs: int, load: float) -> list[Row]:
    """Returns the rows of the jobs that arrived at random."""
    draw, lengths = random.Random(1), LENGTHS[model]
    with postgres_server(durable=True) as control, scratch_database(control) as url:
        settings = {"DGX_MUSIC_DATABASE_URL": url, "DGX_MUSIC_WORKER_SLOTS": "1", "DGX_MUSIC_LOG_LEVEL": "info"}
        async with service_processes(folder, "storage", "export", **settings) as services:
            for number in range(1, WORKERS + 1):
                name = "generation" if number == 1 else f"generation-{number}"
                await services.start(name, module=MODULES[model], DGX_MUSIC_DEVICES="cpu")
            with psycopg.connect(url, autocommit=True) as connection:
                ids = [
                    await create(services, model, lengths[number % len(lengths)]) for number in range(CALIBRATION_JOBS)
                ]
                busy = await wait_for(services, connection, ids)
                service_seconds = statistics.mean(ended - claimed for _, _, claimed, ended in busy)
                rate, at = load * WORKERS / service_seconds, time.monotonic()
                ids = []
                for _ in range(jobs):
                    at += draw.expovariate(rate)
                    await asyncio.sleep(max(0.0, at - time.monotonic()))
                    ids.append(await create(services, model, draw.choice(lengths)))
                return await wait_for(services, connection, ids)


def simulate(arrived: Sequence[Row]) -> FleetSimulation:
    """Simulates the jobs as they arrived."""
    served = ServedModel("any", Speed(1 / FRAME_RATE_HZ, 0.0, slots=1), WORKERS, 1.0)  # A second in a second.
    fleet = Fleet((served,), storage_servers=1)
    first = arrived[0][1]
    seconds = arrived[-1][1] - first + 0.1
    simulation = FleetSimulation(Scenario(fleet, Load(0.0), FREE, seconds=seconds, drains=True))
    simulation.arrivals = [
        Job(number, 0, 0, 0, ended - claimed, created - first, remaining_seconds=ended - claimed)
        for number, (_, created, claimed, ended) in enumerate(arrived)
    ]
    simulation.run()
    return simulation


def describe(waits: array[float], busy: float) -> tuple[str, ...]:
    median, high = quantiles(waits, 0.5, 0.95)
    return (*(f"{value:.2f}" for value in (statistics.fmean(waits), median, high)), f"{busy:.0%}")


def main() -> None:
    """Runs and simulates each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=150)
    parser.add_argument("--models", default="paced,sketch")
    parser.add_argument("--load", type=float, default=0.7, help="the share of the workers' time that is used")
    options = parser.parse_args()
    print(f"{WORKERS} workers, {options.jobs} jobs; load average {os.getloadavg()[0]:.1f}\n")
    print("| Waits, s | mean | p50 | p95 | workers busy |\n| --- | --- | --- | --- | --- |")
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            arrived = asyncio.run(run_small_fleet(Path(folder, "data"), model, options.jobs, options.load))
        measured = array("d", (claimed - created for _, created, claimed, _ in arrived))
        span = arrived[-1][3] - arrived[0][1]
        used = sum(completed - claimed for _, _, claimed, completed in arrived) / span / WORKERS
        print(f"| {model}, measured | {' | '.join(describe(measured, used))} |")
        simulation = simulate(arrived)
        used = simulation.counts.running.total / WORKERS / span
        print(f"| {model}, simulated | {' | '.join(describe(all_waits(simulation.counts), used))} |")
    print(f"Load average at the end {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    main()
