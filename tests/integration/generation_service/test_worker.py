"""The claim worker against the real storage and export: every way that a job can end."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace

import grpc
import grpc.aio
import pytest
import soundfile

from dgx_music.errors import ResourceExhausted
from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from generation_service.models.base import TooLarge
from generation_service.models.sketch import Sketch
from generation_service.worker.lease import Lease, LeaseLostReason
from storage_service.db.sqlite import sqlite3
from tests.support.service_stack import is_pending_after, server_process
from tests.support.tone_model import Gate, fail_with


async def test_completed_job_has_a_file_and_its_measurements(services):
    done = await services.wait_until_ended(await services.create_sketch(seconds=3.0))
    assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
    (path,) = services.audio_files()
    assert path == services.folder / done.file_path
    assert path.stat().st_size == done.file_size_bytes
    assert soundfile.info(path).frames == 96_000
    metadata = dict(done.metadata)
    assert metadata["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (metadata["bpm"], metadata["genre"]) == (124, "house")
    assert metadata["frames"] == 96_000
    assert metadata["license"] == "Apache-2.0"
    assert (metadata["normalization_mode"], metadata["largest_reduction_db"], metadata["limited_share"]) == (
        "LINEAR",
        0,
        0,
    )
    assert metadata["integrated_lufs"] == pytest.approx(-16 - metadata["shortfall_lu"], abs=0.1)
    assert metadata["true_peak_dbtp"] <= -1.0 + 1e-6
    assert {"key", "pcm_sha256", "gain_db"} <= set(metadata)
    assert (done.model_version, done.attempt) == (Sketch().info.version, 1)
    assert 0 < done.generation_time_seconds < 300


async def test_measured_tempo_and_key_are_stored_beside_the_intended_ones(services):
    done = await services.wait_until_ended(await services.create_sketch(seconds=8.0))
    metadata = dict(done.metadata)
    assert metadata["measured_bpm"] == pytest.approx(metadata["bpm"], rel=0.01)
    assert metadata["measured_bpm_alternative"] == pytest.approx(metadata["bpm"] / 2, rel=0.01)
    assert 0.1 < metadata["measured_bpm_confidence"] <= 1
    assert metadata["measured_key"].split()[1] in ("major", "minor")
    assert 0.65 < metadata["measured_key_confidence"] <= 1
    assert -40 < metadata["rms_dbfs"] < metadata["true_peak_dbtp"]
    assert metadata["peak_to_loudness_lu"] == pytest.approx(metadata["true_peak_dbtp"] - metadata["integrated_lufs"])


async def test_same_prompt_and_seed_give_the_same_samples(services):
    ids = [await services.create_sketch(seed=seed) for seed in (1, 1, 2)]
    sums = [dict((await services.wait_until_ended(each)).metadata)["pcm_sha256"] for each in ids]
    assert sums[0] == sums[1] != sums[2]


async def test_jobs_share_the_batch(services):
    gate = services.model.at["a", 1] = Gate()
    ids = [await services.create("a")]
    await gate.reached()
    ids.append(await services.create("b"))
    await services.wait_until(ids[1], lambda generation: generation.state == pb.GENERATION_STATE_PROCESSING)
    gate.open()
    for generation_id in ids:
        assert (await services.wait_until_ended(generation_id)).state == pb.GENERATION_STATE_COMPLETED


async def test_running_job_reports_stage_and_progress(services):
    gate = services.model.at["a", 3] = Gate()
    generation_id = await services.create(seconds=0.5)
    await gate.reached()
    seen = await services.wait_until(generation_id, lambda generation: generation.progress > 0)
    assert (seen.stage, seen.progress) == (pb.GENERATION_STAGE_GENERATING, 0.4)
    gate.open()
    assert (await services.wait_until_ended(generation_id)).progress == 1.0


async def test_audio_of_a_running_job_can_be_streamed(services):
    gate = services.model.at["a", 3] = Gate()
    generation_id = await services.create(seconds=0.5)
    request = export_pb2.StreamAudioRequest(generation_id=generation_id, wait_seconds=10)
    parts = aiter(services.export.StreamAudio(request, timeout=60))
    header = (await anext(parts)).header
    assert (header.attempt, header.expected_frames) == (1, 4000)
    await gate.reached()
    assert (await anext(parts)).chunk.start_frame == 0
    gate.open()
    assert [part.WhichOneof("part") async for part in parts][-1] == "end"


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
    await stack.start(
        "generation", renew_interval_seconds=10
    )  # The worker learns of it only from the rejected completion.
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


async def test_rejected_completion_fails_the_job_and_leaves_no_file(stack):
    stack.model.info = replace(stack.model.info, version="v" * 1000)
    await stack.start("storage", "export", "generation")
    failed = await stack.wait_until_ended(await stack.create())
    assert failed.state == pb.GENERATION_STATE_FAILED
    assert failed.error_message.startswith("storage rejected the completion: model_version: ")
    assert stack.audio_files() == []


async def test_unexpected_error_fails_the_job(services, monkeypatch):
    monkeypatch.setattr("generation_service.worker.job.PcmWriter", None)
    failed = await services.wait_until_ended(await services.create())
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "an unexpected error occurred: TypeError"


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


async def test_expired_lease_stops_the_engine_while_storage_is_down(stack):
    await stack.start("storage", "export")
    await stack.start("generation", lease_seconds=2)
    gate = stack.model.at["a", 3] = Gate()
    await stack.create(seconds=3600)
    await gate.reached()
    await stack.stop("storage")
    gate.open()
    await stack.model.release_of("a")


async def test_export_outage_costs_one_attempt(stack):
    await stack.start("storage", "generation")
    generation_id = await stack.create()
    waiting = await stack.wait_until(generation_id, is_pending_after(1))
    assert waiting.error_message.startswith("export: ")
    assert waiting.error_message.endswith("(UNAVAILABLE)")
    await stack.start("export")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_export_outage_during_the_stream_costs_one_attempt(services):
    gate = services.model.at["a", 3] = Gate()
    generation_id = await services.create(seconds=0.8)
    await gate.reached()
    await services.stop("export")
    gate.open()
    waiting = await services.wait_until(generation_id, is_pending_after(1))
    assert waiting.error_message.startswith("export: ")
    await services.start("export")
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_completion_is_retried_until_storage_is_back(services):
    gate = services.model.at["a", 5] = Gate()
    generation_id = await services.create(seconds=0.5)
    await gate.reached()
    await services.stop("storage")
    gate.open()
    await services.model.release_of("a")
    await services.start("storage")
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)


async def test_storage_outage_longer_than_the_lease_costs_one_attempt(stack):
    await stack.start("storage", "export")
    await stack.start("generation", lease_seconds=2)
    gate = stack.model.at["a", 5] = Gate()
    generation_id = await stack.create(seconds=0.5)
    await gate.reached()
    await stack.stop("storage")
    gate.open()
    await stack.wait_for_jobs()
    await stack.start("storage")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_worker_claims_once_storage_has_started(stack):
    await stack.start("export", "generation")
    await stack.start("storage")
    assert (await stack.wait_until_ended(await stack.create())).state == pb.GENERATION_STATE_COMPLETED


async def test_model_failure_fails_the_job_without_retry(services):
    services.model.at["a", 2] = fail_with(ValueError("a string broke"))
    failed = await services.wait_until_ended(await services.create())
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "model 'tone' failed at step 2: ValueError: a string broke"
    assert services.audio_files() == []


async def test_out_of_memory_is_retried(services):
    def once() -> None:
        del services.model.at["a", 2]
        raise ResourceExhausted("no memory", reason="OUT_OF_MEMORY")

    services.model.at["a", 2] = once
    done = await services.wait_until_ended(await services.create())
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_request_larger_than_the_memory_is_not_retried(services):
    services.model.at["a", 0] = fail_with(TooLarge("duration_seconds", "ask for at most 12 s"))
    failed = await services.wait_until_ended(await services.create())
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "duration_seconds: ask for at most 12 s"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample_rate_hz": 44100}, "sample_rate_hz: must be 8000 for model 'tone', not 44100"),
        ({"channels": 1}, "channels: must be 2 for model 'tone', not 1"),
    ],
)
async def test_unsupported_format_fails_the_job(services, fields, message):
    failed = await services.wait_until_ended(await services.create(**fields))
    assert (failed.state, failed.attempt, failed.error_message) == (pb.GENERATION_STATE_FAILED, 1, message)


async def test_job_unfinished_after_the_grace_period_is_handed_back(services):
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
