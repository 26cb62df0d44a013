"""Fault 13: each single step at which export changes the file system fails, in turn. The caller gets the reason, what was
there before is intact, nothing is left behind, and the same call succeeds afterwards."""

from __future__ import annotations

import itertools
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from tests.support.export_client import new_id, run_export_service
from tests.support.export_operations import OPERATIONS, file_hashes, find_damage
from tests.support.export_servers import run_faulty_export_process

REASONS = {
    "ENOSPC": "DISK_FULL",
    "EDQUOT": "DISK_FULL",
    "EIO": "LIBRARY_UNAVAILABLE",
    "EROFS": "LIBRARY_UNAVAILABLE",
}
NO_FAULT = "none", 0
QUICK = {"newer attempt"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OPERATIONS]
)
async def test_each_step_fails(tmp_path: Path, name: str) -> None:
    operation, errors = OPERATIONS[name], itertools.cycle(REASONS)
    outcomes: dict[str, str] = {}
    problems: list[str] = []
    async with run_faulty_export_process(tmp_path) as (_, client, faults):
        generation_id = new_id()
        await operation.prepare(client, generation_id)
        faults.arm(*NO_FAULT)
        await operation.run(client, generation_id)
        steps = faults.arm(*NO_FAULT)
        assert steps
        for number, step in enumerate(steps, 1):
            error, generation_id, expected = next(errors), new_id(), ""
            await operation.prepare(client, generation_id)
            before = file_hashes(tmp_path)
            faults.arm(error, number)
            try:
                await operation.run(client, generation_id)
            except grpc.aio.AioRpcError as raised:
                expected = read_error_details(raised).reason
                assert expected == REASONS[error], f"{number} {step}: {raised}"
            faults.arm(*NO_FAULT)
            outcomes[f"{number} {step} {error}"] = expected or "succeeded"
            left_behind = [] if step.startswith("os.remove") else find_damage(tmp_path)
            problems += [f"{number} {step} {error}: {problem}" for problem in left_behind]
            if expected and "delete" not in name and name != "cleanup" and "rename" not in step and "fsync" not in step:
                assert before <= file_hashes(tmp_path) or name in ("newer attempt", "tags"), f"{number} {step}"
            try:
                await operation.run(client, generation_id)
            except grpc.aio.AioRpcError as raised:
                assert read_error_details(raised).reason == "FILE_NOT_FOUND", f"{number} {step}: {raised}"
                assert name == "delete"
    assert not problems, f"{problems} of {outcomes}"
    assert "DISK_FULL" in outcomes.values()
    async with run_export_service(tmp_path):
        assert not find_damage(tmp_path)
