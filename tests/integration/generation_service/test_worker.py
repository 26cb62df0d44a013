"""Jobs that the worker claims: results, progress and failures, with the real storage and export services."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import soundfile

from dgx_music.errors import ResourceExhausted
from dgx_music.export.v1 import export_pb2
from dgx_music.storage.v1 import storage_pb2 as pb
from generation_service.models.base import TooLarge
from generation_service.models.sketch import Sketch
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


async def test_rejected_completion_fails_the_job_and_leaves_no_file(stack):
    stack.model.info = replace(stack.model.info, version="v" * 1000)
    await stack.start("storage", "export", "generation")
    failed = await stack.wait_until_ended(await stack.create())
    assert failed.state == pb.GENERATION_STATE_FAILED
    assert failed.error_message.startswith("storage rejected the completion: model_version: ")
    assert stack.audio_files() == []


async def test_unexpected_error_fails_the_job(services, monkeypatch):
    monkeypatch.setattr("generation_service.worker.audio_upload.PcmWriter", None)
    failed = await services.wait_until_ended(await services.create())
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 1)
    assert failed.error_message == "an unexpected error occurred: TypeError"


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
