"""Fault 2: export is killed at a step at which it changes the file system, in turn. The next start has the old files or
the complete new ones and nothing half done, and the same call succeeds."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import grpc.aio
import pytest

from dgx_music.error_status import read_error_details
from tests.support.export_client import TIMEOUT_SECONDS, new_id, run_export_service
from tests.support.export_operations import OPERATIONS, find_damage
from tests.support.export_servers import run_faulty_export_process

STRIDE = {"newer attempt": 5, "tags": 6, "render": 5, "delete": 3, "cleanup": 5, "clip": 6, "export": 6}
"""Of so many steps one is tried: each takes a process. What the parts of an operation share is tried with another."""


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
async def test_process_is_killed_at_a_step(tmp_path: Path, name: str) -> None:
    operation, number, is_done = OPERATIONS[name], 1, False
    while not is_done:
        generation_id = new_id()
        async with run_faulty_export_process(tmp_path) as (process, client, faults):
            await operation.prepare(client, generation_id)
            faults.arm("kill", number)
            try:
                await operation.run(client, generation_id)
                is_done = True  # It has fewer steps.
            except grpc.aio.AioRpcError as error:
                refusal = error
                assert refusal.code() is grpc.StatusCode.UNAVAILABLE
                assert await asyncio.wait_for(process.wait(), TIMEOUT_SECONDS) == -signal.SIGKILL
        async with run_export_service(tmp_path) as client:
            assert not find_damage(tmp_path), f"step {number}"
            try:
                await operation.run(client, generation_id)
            except grpc.aio.AioRpcError as error:
                refusal = error
                assert read_error_details(refusal).reason == "FILE_NOT_FOUND", f"step {number}: {refusal}"
                assert name == "delete"
            assert not find_damage(tmp_path), f"step {number}, repeated"
        number += STRIDE[name]
    assert number > 1 + STRIDE[name]
