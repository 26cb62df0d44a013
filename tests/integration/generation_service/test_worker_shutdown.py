"""Jobs when their generation server shuts down, is killed or loses its device."""

from __future__ import annotations

import asyncio

import soundfile

from dgx_music.storage.v1 import storage_pb2 as pb
from tests.support.service_stack import is_pending_after, server_process
from tests.support.tone_model import Gate


async def test_job_unfinished_after_the_grace_period_is_handed_back(services, monkeypatch):
    monkeypatch.setattr("generation_service.worker.job.SUSPEND_SECONDS", 0.2)  # Its step does not end in time.
    gate = services.model.at["a", 3] = Gate()
    generation_id = await services.create(seconds=0.5)
    await gate.reached()
    closing = asyncio.create_task(services.stop("generation"))
    waiting = await services.wait_until(generation_id, is_pending_after(1))
    assert waiting.error_message == "the server is shutting down"
    gate.open()
    await closing
    await services.start("generation")
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt, done.max_attempts) == (pb.GENERATION_STATE_COMPLETED, 2, 4)


async def test_job_that_ends_within_the_grace_period_is_completed(stack):
    await stack.start("storage", "export")
    await stack.start("generation", grace_seconds=10)
    gate = stack.model.at["a", 3] = Gate()
    generation_id = await stack.create()
    await gate.reached()
    closing = asyncio.create_task(stack.stop("generation"))
    await asyncio.sleep(0)  # Let it start draining.
    gate.open()
    await closing
    done = await stack.get(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)


async def test_storage_outage_does_not_block_shutdown(services, monkeypatch):
    monkeypatch.setattr("generation_service.worker.worker.CALL_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr("generation_service.worker.worker.SUSPEND_SECONDS", 0.2)
    gate = services.model.at["a", 3] = Gate()
    await services.create(seconds=0.5)
    await gate.reached()
    await services.stop("storage")
    closing = asyncio.create_task(services.stop("generation"))
    gate.open()
    await asyncio.wait_for(closing, 60)


async def test_server_process_exits_cleanly_on_sigterm(stack):
    await stack.start("storage", "export")
    async with server_process(stack, "generation_service.rpc.server") as server:
        assert (await stack.wait_until_ended(await stack.create_sketch())).state == pb.GENERATION_STATE_COMPLETED
        server.terminate()
        assert await asyncio.wait_for(server.wait(), 60) == 0


async def test_job_of_a_killed_worker_is_completed_by_another(stack):
    await stack.start("storage", "export")
    lease = {"lease_seconds": 2, "renew_interval_seconds": 0.1}
    async with server_process(stack, "tests.support.held_server", "hold", **lease):
        generation_id = await stack.create(seconds=0.5)
        begun = await stack.wait_until(generation_id, lambda generation: generation.progress > 0)
        assert (begun.attempt, begun.progress) == (1, 0.4)
    await stack.start("generation")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)
    assert done.worker_id != begun.worker_id
    (path,) = stack.audio_files()
    assert soundfile.info(path).frames == 4000


async def test_server_with_a_lost_device_exits_with_an_error(stack):
    await stack.start("storage", "export")
    async with server_process(stack, "tests.support.held_server", "lose") as server:
        generation_id = await stack.create(seconds=0.5)
        waiting = await stack.wait_until(generation_id, is_pending_after(1))
        assert waiting.error_message.startswith("the engine stopped: RuntimeError: CUDA error: an illegal memory")
        assert await asyncio.wait_for(server.wait(), 60) == 1
    await stack.start("generation")
    done = await stack.wait_until_ended(generation_id)
    assert done.state == pb.GENERATION_STATE_COMPLETED
    assert done.max_attempts - done.attempt == 1, "the server about to exit must hand the job back without an attempt"
