"""Runs one schedule and returns what it has found."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.soak import oracle
from tests.soak.calls import Caller
from tests.soak.clients import Client
from tests.soak.cluster import Cluster, running_cluster, small_disk
from tests.soak.faults import cause
from tests.soak.ledger import Ledger
from tests.soak.process_samples import Samples
from tests.soak.schedule import Fault, Job, Schedule
from tests.soak.violation import Violation

CLIENTS = 8
"""Jobs at a time."""
FAULTS = 3
"""Faults at a time."""
SHOWN_VIOLATIONS = 20
SHOWN_JOBS = 50
"""How many jobs there are between two lines that say how far a soak is."""


@dataclass
class Report:
    """What a soak has found."""

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def kinds(self) -> set[str]:
        return {violation.kind for violation in self.violations}

    def summary(self) -> str:
        counts = ", ".join(f"{what} {number}" for what, number in sorted(self.counts.items()))
        return "\n".join([counts, *self.lines])

    def shown_violations(self) -> str:
        """The first violations, one on each line."""
        lines = [str(violation) for violation in self.violations[:SHOWN_VIOLATIONS]]
        more = len(self.violations) - len(lines)
        return "\n".join(lines + ([f"and {more} more"] if more else []))


async def run_schedule(
    schedule: Schedule,
    folder: Path,
    database_url: str = "",
    show: Callable[[str], None] = lambda _: None,
    **settings: str,
) -> Report:
    """Runs the schedule on a data directory below `folder`, by default with a SQLite database there. `settings` are
    further environment variables of the services. `show` is told how far it is."""
    report = Report()
    data_dir = folder / "data"
    data_dir.mkdir(parents=True)
    started_at = time.monotonic()
    fault_kinds = {fault.kind for fault in schedule.faults}
    clocked = {fault.target for fault in schedule.faults if fault.kind == "clock"}
    settings |= {"DGX_MUSIC_DATABASE_URL": database_url} if database_url else {}
    with ExitStack() as stack:
        has_disk = "disk full" in fault_kinds and stack.enter_context(small_disk(data_dir))
        async with running_cluster(data_dir, clocked, has_disk, **settings) as cluster:
            await run_on(cluster, schedule, report, show, [data_dir])
        url = database_url or f"sqlite:///{data_dir}/dgx_music.db"
        if not report.violations:  # Else jobs have been left alone.
            report.violations += oracle.check_data(data_dir, url, report.ledger)
        report.violations += oracle.check_logs(folder, data_dir)
    report.lines.append(f"{time.monotonic() - started_at:.0f} s")
    return report


async def run_on(
    cluster: Cluster,
    schedule: Schedule,
    report: Report,
    show: Callable[[str], None],
    data_dirs: Sequence[Path],
    check: Callable[[Caller, Ledger], Coroutine[Any, Any, list[Violation]]] = oracle.check_answers,
) -> None:
    """Runs the schedule and ends all services. `data_dirs` are those of the export servers, and `check` compares what
    the services answer with what was acknowledged."""
    caller, samples = Caller(cluster.music), Samples()
    sampling = asyncio.create_task(samples.collect(cluster))
    try:
        await _let_happen(cluster, schedule, caller, report, show)
        await cluster.restore()
        if not report.violations:
            report.violations += await check(caller, report.ledger)
            for data_dir in data_dirs:
                report.violations += await oracle.wait_for_empty_spool(data_dir)
    except Violation as violation:
        report.violations.append(violation)
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    try:
        await cluster.close()
    except (TimeoutError, Violation) as error:
        report.violations.append(Violation("did not end", "a service", str(error)))
    report.violations += [*cluster.violations, *samples.find_growth()]
    report.counts += report.ledger.counts
    report.counts["processes started"] = cluster.starts
    report.counts["calls repeated"] = sum(caller.repeats.values())
    report.lines += [", ".join(f"{what}: {count}" for what, count in caller.repeats.most_common()), *samples.summary()]


async def _let_happen(
    cluster: Cluster, schedule: Schedule, caller: Caller, report: Report, show: Callable[[str], None]
) -> None:
    """Runs the jobs through the faults. A client that sees a violation ends the soak."""
    clients, faults = asyncio.Semaphore(CLIENTS), asyncio.Semaphore(FAULTS)

    async def live(job: Job) -> None:
        try:
            await Client(job, caller, report.ledger).run()
        except* Violation as group:
            report.violations += [one for one in group.exceptions if isinstance(one, Violation)]
            raise
        finally:
            clients.release()

    async def go_wrong(fault: Fault) -> None:
        try:
            report.counts[f"fault: {fault.kind}" if await cause(cluster, fault) else f"impossible: {fault.kind}"] += 1
        finally:
            faults.release()

    coming = list(schedule.faults)
    try:
        async with asyncio.TaskGroup() as tasks:
            for job in schedule.jobs:
                while coming and coming[0].before_job <= job.number:
                    await faults.acquire()
                    tasks.create_task(go_wrong(coming.pop(0)))
                await clients.acquire()
                if job.number and job.number % SHOWN_JOBS == 0:
                    show(f"job {job.number}, {len(schedule.faults) - len(coming)} faults")
                tasks.create_task(live(job))
    except* Violation as group:
        if not report.violations:
            report.violations += [one for one in group.exceptions if isinstance(one, Violation)]
