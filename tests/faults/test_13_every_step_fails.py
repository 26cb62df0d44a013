"""Fault 13: each step at which export changes the file system fails, in turn. The caller gets the reason, what was
there before is intact, nothing is left behind, and the same call succeeds afterwards."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from tests.support.export_client import ExportClient, new_id, run_export_service
from tests.support.export_operations import LEFT, OPERATIONS, file_hashes, find_damage
from tests.support.export_servers import StepFaults, run_faulty_export_process

REASONS = {
    "ENOSPC": "DISK_FULL",
    "EDQUOT": "DISK_FULL",
    "EIO": "LIBRARY_UNAVAILABLE",
    "EROFS": "LIBRARY_UNAVAILABLE",
}
NO_FAULT = "none", 0
KEEPING = {"export", "newer attempt", "render", "tags", "clip"}
"""Those that leave the files as they were if they fail, except at a late step."""
REMOVING = "os.remove", "os.rmdir", "shutil.rmtree"
LATE = "fsync ", *REMOVING
"""After the rename: the folder, and what was replaced."""
QUICK = ["export"]
SLOW = [name for name in OPERATIONS if name not in QUICK]


@pytest.mark.parametrize("names", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "slow"])
async def test_each_step_fails(tmp_path: Path, names: list[str]) -> None:
    async with run_faulty_export_process(tmp_path) as (client, faults):
        for name in names:
            await fail_each_step(client, faults, name)
    async with run_export_service(tmp_path):
        assert not find_damage(tmp_path)


async def fail_each_step(client: ExportClient, faults: StepFaults, name: str) -> None:
    operation, errors, data_dir = OPERATIONS[name], itertools.cycle(REASONS), client.data_dir
    outcomes: dict[str, str] = {}
    problems: list[str] = []
    generation_id = new_id()
    await operation.prepare(client, generation_id)
    faults.arm(*NO_FAULT)
    await operation.run(client, generation_id)
    steps = faults.arm(*NO_FAULT)
    assert steps
    for number in range(1, len(steps) + 1):
        error, generation_id, expected = next(errors), new_id(), ""
        await operation.prepare(client, generation_id)
        before = file_hashes(data_dir)
        faults.arm(error, number)
        try:
            await operation.run(client, generation_id)
        except grpc.aio.AioRpcError as raised:
            refusal = raised
            expected = read_error_details(refusal).reason
            assert expected == REASONS[error], f"{number}: {refusal}"
        taken = faults.arm(*NO_FAULT)
        step = taken[number - 1] if number <= len(taken) else "none"
        outcomes[f"{number} {step} {error}"] = expected or "succeeded"
        # What could not be removed is removed by the next start.
        damage = [one for one in find_damage(data_dir) if not step.startswith(REMOVING) or LEFT not in one]
        problems += [f"{number} {step} {error}: {one}" for one in damage]
        for leftover in data_dir.rglob("*/.landing/*.part"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        if expected and name in KEEPING and not step.startswith(LATE):
            assert file_hashes(data_dir) == before, f"{number} {step}"
        try:
            await operation.run(client, generation_id)
        except grpc.aio.AioRpcError as raised:
            refusal = raised
            assert read_error_details(refusal).reason == "FILE_NOT_FOUND", f"{number} {step}: {refusal}"
            assert name == "delete"
        await client.clear()
    assert not problems, f"{problems} of {outcomes}"
    assert "DISK_FULL" in outcomes.values()
