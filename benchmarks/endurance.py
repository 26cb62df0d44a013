"""Measures whether a long life costs memory: `make bench-endurance`.

    python -m benchmarks.endurance [--jobs 3600] [--warm-up 1200] [--sample-every 100] [--objects]

Four services, and `dgx-music http`, serve clients that generate, listen live, leave early, cancel, rate, render,
extend, save, import, list, are refused, hang up and delete; some stay, some come and go. After each hundred jobs,
memory (resident, and what is the process's own), threads and open files of each process are sampled, and the sizes of
database, library and spool. Growth per 1,000 jobs is the slope of the Theil-Sen line after the warm-up: the median of
the slopes between all pairs of samples, which an outlier does not move. Prints Markdown, and ends with status 1 if
anything grows beyond its bound.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import psutil

from tests.support.counted_process import FILE_VARIABLE, read_counts
from tests.support.mixed_clients import MixedClients, http_server
from tests.support.service_processes import SERVICES, service_processes

MAX_GROWTH_BYTES = 2_000_000
"""Bound of a process's own memory per 1,000 jobs, 1 kB or so for each call. It moves by more than this, since garbage
with cycles stays until Python looks for it."""
MAX_GROWTH_COUNT = 5.0
"""Bound of threads and open files per 1,000 jobs."""
MAX_DISK_GROWTH_BYTES = 200_000
"""Bound of database and library per 1,000 jobs, all of whose generations are deleted."""
SHOWN_TYPES = 15


@dataclass
class Sample:
    """What a process has at one moment."""

    jobs: int
    resident_bytes: int
    own_bytes: int
    threads: int
    files: int


def sample_process(pid: int, jobs: int) -> Sample:
    """Samples a process with the processes that it has started; this one without them, which are the others."""
    own = psutil.Process(pid)
    family = [own, *(own.children(recursive=True) if pid != os.getpid() else ())]
    memory = [process.memory_full_info() for process in family]
    return Sample(
        jobs,
        sum(each.rss for each in memory),
        sum(each.uss for each in memory),
        sum(process.num_threads() for process in family),
        sum(process.num_fds() for process in family),
    )


def folder_bytes(folder: Path) -> int:
    """Returns the sizes of all files below a folder."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += Path(parent, name).lstat().st_size
            except FileNotFoundError:  # Deleted meanwhile.
                continue
    return total


def slope_per_thousand(points: Sequence[tuple[float, float]]) -> float:
    """Returns the Theil-Sen slope of (jobs, value), per 1,000 jobs."""
    slopes = [(right[1] - left[1]) / (right[0] - left[0]) for left, right in combinations(points, 2)]
    return statistics.median(slopes) * 1000 if slopes else 0.0


class Measurement:
    """Samples of processes and folders, and whether they are flat."""

    def __init__(self, pids: dict[str, int], data_dir: Path, warm_up: int) -> None:
        self._pids, self._data_dir, self._warm_up = pids, data_dir, warm_up
        self.processes: dict[str, list[Sample]] = {name: [] for name in pids}
        self.disk: dict[str, list[tuple[int, int]]] = {"database": [], "library and spool": []}

    def sample(self, jobs: int) -> None:
        """Samples everything after so many jobs."""
        for name, pid in self._pids.items():
            self.processes[name].append(sample_process(pid, jobs))
        database = sum(file.stat().st_size for file in self._data_dir.glob("*.db*"))
        self.disk["database"].append((jobs, database))
        self.disk["library and spool"].append((jobs, folder_bytes(self._data_dir) - database))

    def print_report(self) -> bool:
        """Prints the figures, and returns whether all are flat."""
        is_flat = True
        print("| process | resident, MB | own, MB | own, kB per 1,000 jobs | threads | open files |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name, samples in self.processes.items():
            late = [one for one in samples if one.jobs >= self._warm_up]
            growth = slope_per_thousand([(one.jobs, one.own_bytes) for one in late])
            counts = [slope_per_thousand([(one.jobs, value(one)) for one in late]) for value in (_threads, _files)]
            is_flat &= growth <= MAX_GROWTH_BYTES and max(counts) <= MAX_GROWTH_COUNT
            first, last = late[0], late[-1]
            print(
                f"| {name} | {first.resident_bytes / 1e6:.0f} → {last.resident_bytes / 1e6:.0f} "
                f"| {first.own_bytes / 1e6:.1f} → {last.own_bytes / 1e6:.1f} | {growth / 1e3:+.0f} "
                f"| {first.threads} → {last.threads} | {first.files} → {last.files} |"
            )
        print("\n| on disk | MB | kB per 1,000 jobs |\n| --- | ---: | ---: |")
        for name, sizes in self.disk.items():
            late_sizes = [(jobs, size) for jobs, size in sizes if jobs >= self._warm_up]
            growth = slope_per_thousand(late_sizes)
            is_flat &= growth <= MAX_DISK_GROWTH_BYTES
            print(f"| {name} | {late_sizes[0][1] / 1e6:.2f} → {late_sizes[-1][1] / 1e6:.2f} | {growth / 1e3:+.1f} |")
        return is_flat


def _threads(sample: Sample) -> int:
    return sample.threads


def _files(sample: Sample) -> int:
    return sample.files


async def measure(options: argparse.Namespace, folder: Path) -> bool:
    """Runs the jobs, prints what they cost, and returns whether everything was flat."""
    settings = {FILE_VARIABLE: str(folder)} if options.objects else {}
    (folder / "files").mkdir()
    started_at = time.monotonic()
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(service_processes(folder / "data", "storage", **settings))
        if options.objects:
            await services.kill("storage", 15)
        module = "tests.support.counted_process" if options.objects else None
        await services.start(*SERVICES[not options.objects :], module=module)
        url, http = await stack.enter_async_context(http_server(services.address("gateway")))
        pids = {name: services.running[name].pid for name in SERVICES} | {"http": http.pid, "clients": os.getpid()}
        clients = MixedClients(services.address("gateway"), folder / "files", options.seed, url)
        measurement = Measurement(pids, folder / "data", options.warm_up)
        counts: dict[str, list[dict[str, int]]] = {name: [] for name in SERVICES}
        while clients.jobs < options.jobs:
            await clients.run(min(options.sample_every, options.jobs - clients.jobs))
            for service in services.running.values():
                service.forget_log()
            measurement.sample(clients.jobs)
            if options.objects and clients.jobs >= options.warm_up:
                for name in SERVICES:
                    counts[name].append(await read_counts(pids[name], folder))
            own = {name: round(samples[-1].own_bytes / 1e6, 1) for name, samples in measurement.processes.items()}
            print(f"{clients.jobs} jobs, {time.monotonic() - started_at:.0f} s, own MB: {own}", file=sys.stderr)
    done = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in sorted(clients.done.items()))
    print(f"Done: {done}; {time.monotonic() - started_at:.0f} s.\n")
    is_flat = measurement.print_report()
    for name, series in counts.items():
        if series:
            print(f"\nGrowth of objects in {name} from the first sample after the warm-up to the last one:")
            grown = {kind: series[-1][kind] - series[0].get(kind, 0) for kind in series[-1]}
            for kind, growth in sorted(grown.items(), key=lambda item: -item[1])[:SHOWN_TYPES]:
                print(f"- {kind}: {growth:+d} of {series[-1][kind]}")
    return is_flat


def main() -> None:
    """Measures, and ends with status 1 if anything grew."""
    parser = argparse.ArgumentParser(description="Measures whether a long life costs memory, threads or files.")
    parser.add_argument("--jobs", type=int, default=3600)
    parser.add_argument("--warm-up", type=int, default=1200, help="Jobs before the first sample that counts.")
    parser.add_argument("--sample-every", type=int, default=100, help="Jobs between two samples.")
    parser.add_argument("--objects", action="store_true", help="Also count the objects in the services.")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before\n")
    with tempfile.TemporaryDirectory() as folder:
        is_flat = asyncio.run(measure(options, Path(folder)))
    if not is_flat:
        sys.exit("Something grows beyond its bound.")


if __name__ == "__main__":
    main()
