"""Fault 2: export is killed before each step after which other files are there. The next start has the old files or the
complete new ones and nothing half done, and the same call succeeds."""

from __future__ import annotations

from pathlib import Path

import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import TIMEOUT_SECONDS, ExportClient, new_id
from tests.support.export_operations import OPERATIONS, Operation, find_damage, find_unsynced
from tests.support.export_servers import StepFaults, run_faulty_export_process

MIN_STEPS = 30
"""Of all operations: more than if the steps were not noticed."""


async def is_killed(client: ExportClient, faults: StepFaults, operation: Operation, generation_id: str) -> bool:
    """Whether the service was killed meanwhile; if so, it is back. The client repeats some calls by itself."""
    process_id = faults.process_id
    try:
        await operation.run(client, generation_id)
    except grpc.aio.AioRpcError as error:
        killed = error
        assert killed.code() is grpc.StatusCode.UNAVAILABLE
        assert not read_error_details(killed).reason, killed
        await client.stub.ListFiles(export_pb2.ListFilesRequest(), wait_for_ready=True, timeout=TIMEOUT_SECONDS)
    faults.arm("none", 0)
    return faults.process_id != process_id


async def repeat(client: ExportClient, name: str, generation_id: str) -> None:
    try:
        await OPERATIONS[name].run(client, generation_id)
    except grpc.aio.AioRpcError as error:
        refusal = error
        assert read_error_details(refusal).reason == "FILE_NOT_FOUND", refusal
        assert name == "delete"


@pytest.mark.slow
async def test_what_is_moved_is_durable(tmp_path: Path) -> None:
    """A power cut loses what was not synced: contents, and names."""
    async with run_faulty_export_process(tmp_path) as (client, faults):
        for name, operation in OPERATIONS.items():
            generation_id = new_id()
            await operation.prepare(client, generation_id)
            faults.arm("none", 0)
            await operation.run(client, generation_id)
            steps = faults.arm("none", 0)
            assert steps
            assert not find_unsynced(steps), name


@pytest.mark.slow
async def test_process_is_killed_before_each_step(tmp_path: Path) -> None:
    killed: list[str] = []
    async with run_faulty_export_process(tmp_path) as (client, faults):
        for name, operation in OPERATIONS.items():
            number, is_done = 0, False
            while not is_done:
                number += 1
                generation_id = new_id()
                await operation.prepare(client, generation_id)
                faults.arm("kill", number)
                if await is_killed(client, faults, operation, generation_id):
                    killed.append(f"{name} {number}")
                else:
                    is_done = True  # It has fewer steps.
                assert not find_damage(tmp_path), f"{name}, step {number}"
                await repeat(client, name, generation_id)
                assert not find_damage(tmp_path), f"{name}, step {number}, repeated"
                await client.clear()
    assert {one.rpartition(" ")[0] for one in killed} == set(OPERATIONS)
    assert len(killed) >= MIN_STEPS, killed
