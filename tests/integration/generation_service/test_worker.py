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
from generation_service.worker.lease import Lease, Loss
from storage_service.db.sqlite import sqlite3
from tests.support.service_stack import is_pending_after, server_process
from tests.support.tone_model import Gate, fail_with


async def test_a_job_ends_as_a_measured_file_and_a_completed_row(full_house):
    done = await full_house.end(await full_house.sketch(seconds=3.0))
    assert done.state == pb.GENERATION_STATE_COMPLETED, done.error_message
    (path,) = full_house.files()
    assert path == full_house.folder / done.file_path
    assert path.stat().st_size == done.file_size_bytes
    assert soundfile.info(path).frames == 96_000
    known = dict(done.metadata)
    assert known["file_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (known["bpm"], known["genre"]) == (124, "house")
    assert known["frames"] == 96_000
    assert known["license"] == "Apache-2.0"
    assert (known["normalization_mode"], known["largest_reduction_db"], known["limited_share"]) == ("LINEAR", 0, 0)
    assert known["integrated_lufs"] == pytest.approx(-16 - known["shortfall_lu"], abs=0.1)
    assert known["true_peak_dbtp"] <= -1.0 + 1e-6
    assert {"key", "pcm_sha256", "gain_db"} <= set(known)
    assert (done.model_version, done.attempt) == (Sketch().info.version, 1)
    assert 0 < done.generation_time_seconds < 300


async def test_what_is_heard_is_stored_beside_what_is_known(full_house):
    done = await full_house.end(await full_house.sketch(seconds=8.0))
    known = dict(done.metadata)
    assert known["measured_bpm"] == pytest.approx(known["bpm"], rel=0.01)
    assert known["measured_bpm_alternative"] == pytest.approx(known["bpm"] / 2, rel=0.01)
    assert 0.1 < known["measured_bpm_confidence"] <= 1
    assert known["measured_key"].split()[1] in ("major", "minor")
    assert 0.65 < known["measured_key_confidence"] <= 1
    assert -40 < known["rms_dbfs"] < known["true_peak_dbtp"]
    assert known["peak_to_loudness_lu"] == pytest.approx(known["true_peak_dbtp"] - known["integrated_lufs"])


async def test_the_same_prompt_and_seed_give_the_same_samples(full_house):
    ids = [await full_house.sketch(seed=seed) for seed in (1, 1, 2)]
    sums = [dict((await full_house.end(each)).metadata)["pcm_sha256"] for each in ids]
    assert sums[0] == sums[1] != sums[2]


async def test_jobs_share_the_batch(full_house):
    gate = full_house.model.at["a", 1] = Gate()
    ids = [await full_house.create("a")]
    await gate.reached()
    ids.append(await full_house.create("b"))
    await full_house.until(ids[1], lambda generation: generation.state == pb.GENERATION_STATE_PROCESSING)
    gate.open()
    for generation_id in ids:
        assert (await full_house.end(generation_id)).state == pb.GENERATION_STATE_COMPLETED


async def test_stage_and_progress_are_told_while_it_runs(full_house):
    gate = full_house.model.at["a", 3] = Gate()
    generation_id = await full_house.create(seconds=0.5)
    await gate.reached()
    seen = await full_house.until(generation_id, lambda generation: generation.progress > 0)
    assert (seen.stage, seen.progress) == (pb.GENERATION_STAGE_GENERATING, 0.4)
    gate.open()
    assert (await full_house.end(generation_id)).progress == 1.0


async def test_audio_is_heard_while_it_is_made(full_house):
    gate = full_house.model.at["a", 3] = Gate()
    generation_id = await full_house.create(seconds=0.5)
    request = export_pb2.StreamAudioRequest(generation_id=generation_id, wait_seconds=10)
    parts = aiter(full_house.export.StreamAudio(request, timeout=60))
    header = (await anext(parts)).header
    assert (header.attempt, header.expected_frames) == (1, 4000)
    await gate.reached()
    assert (await anext(parts)).chunk.start_frame == 0
    gate.open()
    assert [part.WhichOneof("part") async for part in parts][-1] == "end"


async def test_cancel_stops_the_engine_and_leaves_no_file(full_house):
    gate = full_house.model.at["a", 3] = Gate()
    generation_id = await full_house.create(seconds=3600)
    await gate.reached()
    await full_house.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    gate.open()
    await full_house.model.release_of("a")
    assert (await full_house.end(generation_id)).state == pb.GENERATION_STATE_CANCELLED
    await full_house.end(await full_house.create("next"))
    assert [path.stem for path in full_house.files()] != [generation_id]
    assert len(full_house.files()) == 1


@pytest.mark.parametrize("is_deleted", [False, True], ids=["cancelled", "cancelled and deleted"])
async def test_a_file_that_landed_after_the_cancel_is_deleted(house, is_deleted):
    await house.open("storage", "export")
    await house.open("generation", renew_interval_seconds=10)  # Learns of it only from the refused completion.
    gate = house.model.at["a", 5] = Gate()
    generation_id = await house.create(seconds=0.5)
    await gate.reached()
    await house.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    if is_deleted:
        await house.storage.DeleteGeneration(pb.DeleteGenerationRequest(id=generation_id), timeout=60)
    gate.open()
    await house.jobs_ended()
    with pytest.raises(grpc.aio.AioRpcError) as gone:
        await house.export.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=60)
    assert gone.value.code() is grpc.StatusCode.NOT_FOUND
    assert house.files() == []


async def test_a_failure_after_the_cancel_changes_nothing(house):
    await house.open("storage", "export")
    await house.open("generation", renew_interval_seconds=10)
    gate = house.model.at["a", 3] = Gate()
    house.model.at["a", 4] = fail_with(ValueError())
    generation_id = await house.create(seconds=0.5)
    await gate.reached()
    await house.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    gate.open()
    await house.jobs_ended()
    cancelled = await house.get(generation_id)
    assert (cancelled.state, cancelled.error_message) == (pb.GENERATION_STATE_CANCELLED, "")


async def test_a_completion_that_storage_refuses_fails_the_job_and_leaves_no_file(house):
    house.model.info = replace(house.model.info, version="v" * 1000)
    await house.open("storage", "export", "generation")
    failed = await house.end(await house.create())
    assert failed.state == pb.GENERATION_STATE_FAILED
    assert failed.error_message.startswith("storage did not take the completion: model_version: ")
    assert house.files() == []


async def test_an_unforeseen_error_fails_the_job(full_house, monkeypatch):
    monkeypatch.setattr("generation_service.worker.job.PcmWriter", None)
    failed = await full_house.end(await full_house.create())
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "an unforeseen error: TypeError"


async def test_a_cancel_while_the_file_is_landing_leaves_none(full_house, monkeypatch):
    gate, fsync, learnt, keep = Gate(), os.fsync, asyncio.Event(), Lease.keep

    async def keep_and_tell(lease: Lease, report: Callable[[], object]) -> Loss:
        loss = await keep(lease, report)
        learnt.set()
        return loss

    monkeypatch.setattr(Lease, "keep", keep_and_tell)

    def held_fsync(descriptor: int) -> None:
        gate()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", held_fsync)
    generation_id = await full_house.create(seconds=0.5)
    await gate.reached()
    await full_house.storage.CancelGeneration(pb.CancelGenerationRequest(id=generation_id), timeout=60)
    await learnt.wait()
    jobs = asyncio.create_task(full_house.jobs_ended())
    gate.open()
    await jobs
    await full_house.close("export")
    assert full_house.files() == []


async def test_a_stale_lease_stops_the_engine_and_touches_nothing(full_house):
    gate = full_house.model.at["a", 3] = Gate()
    generation_id = await full_house.create(seconds=3600)
    await gate.reached()
    with sqlite3.connect(full_house.folder / "dgx_music.db") as database:
        database.execute("UPDATE generations SET lease_token = 'of another worker'")
    database.close()
    gate.open()
    await full_house.model.release_of("a")
    assert (await full_house.get(generation_id)).state == pb.GENERATION_STATE_PROCESSING
    assert full_house.files() == []


async def test_a_stale_completion_leaves_the_file_to_the_other_attempt(house):
    await house.open("storage", "export")
    await house.open("generation", renew_interval_seconds=10)
    gate = house.model.at["a", 5] = Gate()
    generation_id = await house.create(seconds=0.5)
    await gate.reached()
    with sqlite3.connect(house.folder / "dgx_music.db") as database:
        database.execute("UPDATE generations SET lease_token = 'of another worker'")
    database.close()
    gate.open()
    await house.jobs_ended()
    await house.close("generation")
    assert (await house.get(generation_id)).state == pb.GENERATION_STATE_PROCESSING
    assert [path.stem for path in house.files()] == [generation_id]


async def test_a_lease_that_ran_out_unreachably_stops_the_engine(house):
    await house.open("storage", "export")
    await house.open("generation", lease_seconds=2)
    gate = house.model.at["a", 3] = Gate()
    await house.create(seconds=3600)
    await gate.reached()
    await house.close("storage")
    gate.open()
    await house.model.release_of("a")


async def test_export_that_is_away_costs_an_attempt_and_no_more(house):
    await house.open("storage", "generation")
    generation_id = await house.create()
    waiting = await house.until(generation_id, is_pending_after(1))
    assert waiting.error_message.startswith("export: ")
    assert waiting.error_message.endswith("(UNAVAILABLE)")
    await house.open("export")
    done = await house.end(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_export_that_goes_away_midway_costs_an_attempt_and_no_more(full_house):
    gate = full_house.model.at["a", 3] = Gate()
    generation_id = await full_house.create(seconds=0.8)
    await gate.reached()
    await full_house.close("export")
    gate.open()
    waiting = await full_house.until(generation_id, is_pending_after(1))
    assert waiting.error_message.startswith("export: ")
    await full_house.open("export")
    done = await full_house.end(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_storage_that_is_away_at_the_end_is_told_when_it_is_back(full_house):
    gate = full_house.model.at["a", 5] = Gate()
    generation_id = await full_house.create(seconds=0.5)
    await gate.reached()
    await full_house.close("storage")
    gate.open()
    await full_house.model.release_of("a")
    await full_house.open("storage")
    done = await full_house.end(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)


async def test_a_completion_that_cannot_be_told_within_the_lease_costs_an_attempt(house):
    await house.open("storage", "export")
    await house.open("generation", lease_seconds=2)
    gate = house.model.at["a", 5] = Gate()
    generation_id = await house.create(seconds=0.5)
    await gate.reached()
    await house.close("storage")
    gate.open()
    await house.jobs_ended()
    await house.open("storage")
    done = await house.end(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_work_is_claimed_once_storage_is_there(house):
    await house.open("export", "generation")
    await house.open("storage")
    assert (await house.end(await house.create())).state == pb.GENERATION_STATE_COMPLETED


async def test_a_model_that_fails_fails_the_job_for_good(full_house):
    full_house.model.at["a", 2] = fail_with(ValueError("a string broke"))
    failed = await full_house.end(await full_house.create())
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "model 'tone' failed at step 2: ValueError: a string broke"
    assert full_house.files() == []


async def test_running_out_of_memory_is_tried_again(full_house):
    def once() -> None:
        del full_house.model.at["a", 2]
        raise ResourceExhausted("no memory", reason="OUT_OF_MEMORY")

    full_house.model.at["a", 2] = once
    done = await full_house.end(await full_house.create())
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)


async def test_what_this_server_has_no_memory_for_is_not_tried_again(full_house):
    full_house.model.at["a", 0] = fail_with(TooLarge("duration_seconds", "ask for at most 12 s"))
    failed = await full_house.end(await full_house.create())
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "duration_seconds: ask for at most 12 s"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample_rate_hz": 44100}, "sample_rate_hz: must be 8000 for model 'tone', not 44100"),
        ({"channels": 1}, "channels: must be 2 for model 'tone', not 1"),
    ],
)
async def test_a_format_that_the_model_does_not_make_fails_the_job(full_house, fields, message):
    failed = await full_house.end(await full_house.create(**fields))
    assert (failed.state, failed.attempt, failed.error_message) == (pb.GENERATION_STATE_FAILED, 1, message)


async def test_what_is_left_at_the_end_of_the_grace_is_handed_back_at_once(full_house):
    gate = full_house.model.at["a", 3] = Gate()
    generation_id = await full_house.create(seconds=0.5)
    await gate.reached()
    closing = asyncio.create_task(full_house.close("generation"))
    waiting = await full_house.until(generation_id, is_pending_after(1))
    assert waiting.error_message == "the server is shutting down"
    gate.open()
    await closing
    await full_house.open("generation")
    done = await full_house.end(generation_id)
    assert (done.state, done.attempt, done.max_attempts) == (pb.GENERATION_STATE_COMPLETED, 2, 4)


async def test_a_job_that_ends_within_the_grace_is_completed(house):
    await house.open("storage", "export")
    await house.open("generation", grace_seconds=10)
    gate = house.model.at["a", 3] = Gate()
    generation_id = await house.create()
    await gate.reached()
    closing = asyncio.create_task(house.close("generation"))
    await asyncio.sleep(0)  # It drains now.
    gate.open()
    await closing
    done = await house.get(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)


async def test_storage_that_is_away_does_not_keep_the_server_from_ending(full_house, monkeypatch):
    monkeypatch.setattr("generation_service.worker.worker.CALL_SECONDS", 0.3)
    gate = full_house.model.at["a", 3] = Gate()
    await full_house.create(seconds=0.5)
    await gate.reached()
    await full_house.close("storage")
    closing = asyncio.create_task(full_house.close("generation"))
    gate.open()
    await asyncio.wait_for(closing, 60)


async def test_the_server_runs_as_a_process_of_its_own_and_ends_on_a_signal(house):
    await house.open("storage", "export")
    async with server_process(house, "generation_service.rpc.server") as server:
        assert (await house.end(await house.sketch())).state == pb.GENERATION_STATE_COMPLETED
        server.terminate()
        assert await asyncio.wait_for(server.wait(), 60) == 0


async def test_another_worker_completes_what_a_killed_one_left(house):
    await house.open("storage", "export")
    lease = {"lease_seconds": 2, "renew_interval_seconds": 0.1}
    async with server_process(house, "tests.support.held_server", "hold", **lease):
        generation_id = await house.create(seconds=0.5)
        begun = await house.until(generation_id, lambda generation: generation.progress > 0)
        assert (begun.attempt, begun.progress) == (1, 0.4)
    await house.open("generation")
    done = await house.end(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)
    assert done.worker_id != begun.worker_id
    (path,) = house.files()
    assert soundfile.info(path).frames == 4000


async def test_a_server_whose_device_is_lost_ends_for_its_supervisor_to_start_anew(house):
    await house.open("storage", "export")
    async with server_process(house, "tests.support.held_server", "lose") as server:
        generation_id = await house.create(seconds=0.5)
        waiting = await house.until(generation_id, is_pending_after(1))
        assert waiting.error_message.startswith("the engine stopped: RuntimeError: CUDA error: an illegal memory")
        assert await asyncio.wait_for(server.wait(), 60) == 1
    await house.open("generation")
    done = await house.end(generation_id)
    assert done.state == pb.GENERATION_STATE_COMPLETED
    assert done.max_attempts - done.attempt == 1, "handed back, not tried, by the server that was about to end"
