"""A short soak on many hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.hosts import host_names, run_on_hosts
from tests.soak.schedule import draw_host_schedule

COUNTS = {"storage": 2, "export": 2, "generation": 2, "gateway": 2}


@pytest.mark.slow
async def test_servers_of_each_kind_are_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    schedule = draw_host_schedule(2, 20, 6, host_names(COUNTS))
    report = await run_on_hosts(schedule, tmp_path, COUNTS)
    assert not report.violations, report.shown_violations()
    assert report.counts["completed"] > 8


def test_a_seed_stands_for_one_schedule_of_hosts() -> None:
    names = host_names()
    assert draw_host_schedule(5, 30, 30, names) == draw_host_schedule(5, 30, 30, names)
    targets = {fault.target for fault in draw_host_schedule(5, 30, 300, names).faults}
    assert targets == {*names, "postgres", "s3"}
