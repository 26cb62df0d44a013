"""A soak of some seconds, a longer one, and what the oracle finds in data that is damaged afterwards."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.soak import oracle
from tests.soak.ledger import COMPLETED, Entry, Ledger
from tests.soak.requests import build_request
from tests.soak.run import Report, run_schedule
from tests.soak.schedule import Fault, Schedule, draw_schedule

SHORT = {
    "DGX_MUSIC_LEASE_SECONDS": "2",
    "DGX_MUSIC_LEASE_SWEEP_SECONDS": "0.2",
    "DGX_MUSIC_RENEW_INTERVAL_SECONDS": "0.3",
    "DGX_MUSIC_SPOOL_KEEP_SECONDS": "0.2",
    "DGX_MUSIC_FAILED_SPOOL_KEEP_SECONDS": "10",
}


def find_output(data_dir: Path, number: int) -> Path:
    return sorted((data_dir / "outputs").glob("*/*/*/*.*"))[number]


def remove_file(data_dir: Path, ledger: Ledger) -> str:
    find_output(data_dir, 0).unlink()
    return "db check"


def change_file(data_dir: Path, ledger: Ledger) -> str:
    path = find_output(data_dir, 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return "db check"


def leave_spool(data_dir: Path, ledger: Ledger) -> str:
    (data_dir / "spool" / "x.1.pcm.part").touch()
    return "stray file"


def leave_file_of_deleted_job(data_dir: Path, ledger: Ledger) -> str:
    entry = next(entry for entry in ledger.entries if entry.state == COMPLETED)
    entry.is_deleted = True
    return "stray file"


def lose_render(data_dir: Path, ledger: Ledger) -> str:
    entry = next(entry for entry in ledger.entries if entry.state == COMPLETED and not entry.is_deleted)
    entry.renders.add("never made")
    return "files missing"


def lose_prompt(data_dir: Path, ledger: Ledger) -> str:
    with sqlite3.connect(data_dir / "dgx_music.db") as connection:
        connection.execute("DELETE FROM prompts")
    connection.close()
    return "db check"


DAMAGES = (lose_render, leave_spool, change_file, lose_prompt, leave_file_of_deleted_job, remove_file)


def check(folder: Path, ledger: Ledger) -> Counter[str]:
    """Returns how many violations of each kind there are."""
    data_dir = folder / "data"
    found = oracle.check_data(data_dir, f"sqlite:///{data_dir}/dgx_music.db", ledger)
    return Counter(violation.kind for violation in found)


def assert_clean(report: Report) -> None:
    assert not report.violations, report.shown_violations()


@pytest.mark.slow
async def test_some_seconds_of_faults_lose_nothing_and_the_oracle_sees_damage(tmp_path: Path) -> None:
    drawn = draw_schedule(11, 8, 0)
    faults = (
        Fault(2, "cut", "generation>export", 0),
        Fault(3, "kill", "generation", 0),
        Fault(5, "lose answers", "client>gateway", 0.3),
    )
    report = await run_schedule(Schedule(11, drawn.jobs, faults), tmp_path, **SHORT)
    assert_clean(report)
    assert sum(report.counts[f"fault: {fault.kind}"] for fault in faults) == len(faults)
    before = check(tmp_path, report.ledger)
    damage: Callable[[Path, Ledger], str]
    for damage in DAMAGES:  # One after another, each in addition to those before it.
        kind = damage(tmp_path / "data", report.ledger)
        found = check(tmp_path, report.ledger)
        assert found[kind] > before[kind], damage.__name__
        before = found


def test_the_oracle_misses_what_was_acknowledged() -> None:
    job = draw_schedule(1, 1, 0).jobs[0]
    entry = Entry(job, job.request_id, build_request(job, None))
    assert [violation.kind for violation in oracle.check_entry(entry, None)] == ["lost"]
    entry.is_deleted = True
    assert list(oracle.check_entry(entry, None)) == []


@pytest.mark.slow
async def test_a_minute_of_faults_loses_nothing(tmp_path: Path) -> None:
    assert_clean(await run_schedule(draw_schedule(4, 40, 12), tmp_path))


def test_a_seed_stands_for_one_schedule(tmp_path: Path) -> None:
    schedule = draw_schedule(5, 30, 30)
    assert schedule == draw_schedule(5, 30, 30) != draw_schedule(6, 30, 30)
    schedule.write(tmp_path / "schedule.json")
    assert Schedule.read(tmp_path / "schedule.json") == schedule
