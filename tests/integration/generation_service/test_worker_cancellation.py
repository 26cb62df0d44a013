"""Jobs that are cancelled, or whose lease another worker holds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import grpc
import grpc.aio
import pytest

from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from generation_service.worker.lease import Lease, LeaseLostReason
from storage_service.db.sqlite import sqlite3
from tests.support.failpoints import armed
from tests.support.tone_model import Gate, fail_with


async def test_cancel_stops_the_engine_and_leaves_no_file(services):
    gate = services.model.at["a", 3] = Gate()
    generation_id = await services.create(seconds=3600)
    await gate.reached()
    await services.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    gate.open()
    await services.model.release_of("a")
    assert (await services.wait_until_ended(generation_id)).state == pb.GENERATION_STATE_CANCELLED
    await services.wait_until_ended(await services.create("next"))
    assert [path.stem for path in services.audio_files()] != [generation_id]
    assert len(services.audio_files()) == 1


@pytest.mark.parametrize("is_deleted", [False, True], ids=["cancelled", "cancelled and deleted"])
async def test_file_completed_after_the_cancel_is_deleted(stack, is_deleted):
    await stack.start("storage", "export")
    # The worker learns of the cancel only from the rejected completion.
    await stack.start("generation", renew_interval_seconds=10)
    gate = stack.model.at["a", 5] = Gate()
    generation_id = await stack.create(seconds=0.5)
    await gate.reached()
    await stack.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    if is_deleted:
        await stack.storage.DeleteGeneration(pb.DeleteGenerationRequest(id=generation_id), timeout=60)
    gate.open()
    await stack.wait_for_jobs()
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await stack.export.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=60)
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    assert stack.audio_files() == []


async def test_failure_after_the_cancel_keeps_the_cancelled_state(stack):
    await stack.start("storage", "export")
    await stack.start("generation", renew_interval_seconds=10)
    gate = stack.model.at["a", 3] = Gate()
    stack.model.at["a", 4] = fail_with(ValueError())
    generation_id = await stack.create(seconds=0.5)
    await gate.reached()
    await stack.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    gate.open()
    await stack.wait_for_jobs()
    cancelled = await stack.get(generation_id)
    assert (cancelled.state, cancelled.error_message) == (pb.GENERATION_STATE_CANCELLED, "")


async def test_cancel_during_the_files_commit_leaves_no_file(services, monkeypatch):
    gate, fsync, lease_lost = Gate(), os.fsync, asyncio.Event()
    renew_until_lost = Lease.renew_until_lost

    async def renew_and_notify(lease: Lease, current_progress: Callable[[], object]) -> LeaseLostReason:
        reason = await renew_until_lost(lease, current_progress)
        lease_lost.set()
        return reason

    def gated_fsync(descriptor: int) -> None:
        gate()
        fsync(descriptor)

    monkeypatch.setattr(Lease, "renew_until_lost", renew_and_notify)
    monkeypatch.setattr(os, "fsync", gated_fsync)
    generation_id = await services.create(seconds=0.5)
    await gate.reached()
    await services.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    await lease_lost.wait()
    jobs = asyncio.create_task(services.wait_for_jobs())
    gate.open()
    await jobs
    await services.stop("export")
    assert services.audio_files() == []
    assert services.spools() == []


async def test_samples_of_an_export_that_fails_after_the_cancel_are_deleted(stack):
    await stack.start("storage", "export")
    await stack.start("generation", renew_interval_seconds=10)
    gate = stack.model.at["a", 5] = Gate()
    generation_id = await stack.create(seconds=0.5)
    await gate.reached()
    await stack.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    with armed("export.before_fsync:EIO"):
        gate.open()
        await stack.wait_for_jobs()
    assert (await stack.get(generation_id)).state == pb.GENERATION_STATE_CANCELLED
    assert stack.audio_files() == stack.spools() == []


async def test_stale_lease_stops_the_engine_and_changes_nothing(services):
    gate = services.model.at["a", 3] = Gate()
    generation_id = await services.create(seconds=3600)
    await gate.reached()
    with sqlite3.connect(services.folder / "dgx_music.db") as database:
        database.execute("UPDATE generations SET lease_token = 'of another worker'")
    database.close()
    gate.open()
    await services.model.release_of("a")
    assert (await services.get(generation_id)).state == pb.GENERATION_STATE_PROCESSING
    assert services.audio_files() == []


async def test_stale_completion_keeps_the_file_for_the_other_attempt(stack):
    await stack.start("storage", "export")
    await stack.start("generation", renew_interval_seconds=10)
    gate = stack.model.at["a", 5] = Gate()
    generation_id = await stack.create(seconds=0.5)
    await gate.reached()
    with sqlite3.connect(stack.folder / "dgx_music.db") as database:
        database.execute("UPDATE generations SET lease_token = 'of another worker'")
    database.close()
    gate.open()
    await stack.wait_for_jobs()
    await stack.stop("generation")
    assert (await stack.get(generation_id)).state == pb.GENERATION_STATE_PROCESSING
    assert [path.stem for path in stack.audio_files()] == [generation_id]
