"""python -m tests.soak --seed 1 --jobs 500 --faults 100"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.soak.hosts import host_names, run_on_hosts
from tests.soak.run import Report, run_schedule
from tests.soak.schedule import KINDS, Fault, Job, Schedule, draw_host_schedule, draw_schedule
from tests.soak.shrinking import shrink

MAX_SHOWN_EVENTS = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS), help="kinds of faults")
    parser.add_argument("--schedule", type=Path, help="run this file instead, which an earlier run has written")
    parser.add_argument("--hosts", action="store_true", help="several servers of each kind, on Postgres and S3")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--shrink-seconds", type=float, default=900, help="how long to look for a shorter failure")
    parser.add_argument("--keep", action="store_true", help="keep data and logs of the run")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # So that the services end with it.
    if arguments.schedule:
        schedule = Schedule.read(arguments.schedule)
    elif arguments.hosts:
        schedule = draw_host_schedule(arguments.seed, arguments.jobs, arguments.faults, host_names())
    else:
        schedule = draw_schedule(arguments.seed, arguments.jobs, arguments.faults, arguments.kinds)
    with ExitStack() as stack:
        soak = Soak(arguments.database, arguments.keep, stack, on_hosts=arguments.hosts)
        print(f"seed {schedule.seed}: {len(schedule.jobs)} jobs, {len(schedule.faults)} faults", flush=True)
        report = soak.run(schedule)
        print(report.summary(), flush=True)
        if not report.violations:
            print("nothing was lost")
            return 0
        print(f"\nFAILED, seed {schedule.seed}:\n{report.shown_violations()}\n", flush=True)
        shortest = soak.shrink(schedule, report, arguments.shrink_seconds)
        path = Path(tempfile.gettempdir()) / f"soak-{schedule.seed}.json"
        shortest.write(path)
        print(f"The shortest schedule that fails has {len(shortest.jobs)} jobs and {len(shortest.faults)} faults:")
        events = [str(event) for event in (*shortest.jobs, *shortest.faults)]
        print(*events[:MAX_SHOWN_EVENTS], *(["…"] if len(events) > MAX_SHOWN_EVENTS else []), sep="\n")
        options = " --database postgres" * (arguments.database == "postgres") + " --hosts" * arguments.hosts
        print(f"To repeat it: python -m tests.soak --schedule {path}{options}")
    return 1


def show(progress: str) -> None:
    print(f"  {progress}", flush=True)


class Soak:
    """Runs schedules, each on new data."""

    def __init__(self, database: str, keep: bool, stack: ExitStack, *, on_hosts: bool = False) -> None:
        self._keep, self._postgres, self._on_hosts = keep, None, on_hosts
        if database == "postgres" and not on_hosts:
            from tests.support.postgres import postgres_server

            self._postgres = stack.enter_context(postgres_server())

    def run(self, schedule: Schedule) -> Report:
        return asyncio.run(self._run(schedule))

    def shrink(self, schedule: Schedule, report: Report, seconds: float) -> Schedule:
        """Returns a shorter schedule that fails in a way in which the whole one did."""

        async def fails(events: Sequence[Job | Fault]) -> bool:
            shorter = schedule.only(events)
            found = await self._run(shorter) if shorter.jobs else Report()
            has_failed = bool(found.kinds & report.kinds)
            print(f"  {len(shorter.jobs)} jobs, {len(shorter.faults)} faults: {'fails' if has_failed else 'passes'}")
            sys.stdout.flush()
            return has_failed

        async def search() -> Schedule:
            # The faults first: each job is cheap, and hides nothing.
            faults = await shrink(schedule.faults, lambda some: fails([*schedule.jobs, *some]), seconds / 2)
            jobs = await shrink(schedule.jobs, lambda some: fails([*some, *faults]), seconds / 2)
            return schedule.only([*jobs, *faults])

        return asyncio.run(search())

    async def _run(self, schedule: Schedule) -> Report:
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        with ExitStack() as stack:
            url = ""
            if self._postgres is not None:
                from tests.support.postgres import scratch_database

                url = stack.enter_context(scratch_database(self._postgres))
            try:
                if self._on_hosts:
                    return await run_on_hosts(schedule, folder, show=show)
                return await run_schedule(schedule, folder, url, show)
            finally:
                if self._keep:
                    print(f"kept {folder}")
                else:
                    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
