"""Exports that fail after all the audio has arrived: the next attempt resumes them and generates nothing."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import soundfile

from dgx_music.storage.v1 import storage_pb2 as pb
from export_service.library import filesystem
from generation_service.models.sketch import Sketch
from tests.support.failpoints import armed
from tests.support.service_stack import is_pending_after, server_process
from tests.support.tone_model import Gate

INTERNAL_FAULT, DISK_FULL = "export.before_mastering:raise", "export.before_rename:ENOSPC"


def figures(generation):
    """Returns the metadata without what depends on the number of the attempt, which the file's tags contain."""
    excluded = ("file_sha256", "audio_attempt")
    return {name: value for name, value in dict(generation.metadata).items() if name not in excluded}


@pytest.mark.parametrize(
    ("fault", "code"),
    [(INTERNAL_FAULT, "INTERNAL"), pytest.param(DISK_FULL, "RESOURCE_EXHAUSTED", marks=pytest.mark.slow)],
)
async def test_next_attempt_resumes_the_export(services, monkeypatch, fault, code):
    monkeypatch.setattr(filesystem, "DISK_FULL_RETRY_SECONDS", 2.5)
    failed_at = datetime.now(UTC)
    with armed(fault):
        generation_id = await services.create()
        waiting = await services.wait_until(generation_id, is_pending_after(1))
    assert waiting.error_message.startswith("export: ")
    assert waiting.error_message.endswith(f"({code})")
    delay = waiting.not_before.ToDatetime(tzinfo=UTC) - failed_at
    assert delay >= timedelta(seconds=2.5 if fault == DISK_FULL else 1)
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)
    assert services.model.prefilled == ["a"]
    assert [path.name for path in services.spools()] == [f"{generation_id}.1.pcm"]


@pytest.mark.parametrize("is_restarted", [False, True], ids=["same process", "export restarted"])
async def test_retry_of_a_failed_generation_resumes_its_export(services, is_restarted):
    source = await services.wait_until_ended(await services.create("b", seconds=1.0))
    request = {"seconds": 8.0, "seed": 330, "continuation": pb.Continuation(source_id=source.id, seconds=0.75)}
    undisturbed = await services.wait_until_ended(await services.create("a", **request))
    with armed(INTERNAL_FAULT):
        generation_id = await services.create("a", max_attempts=1, **request)
        failed = await services.wait_until_ended(generation_id)
    assert failed.state == pb.GENERATION_STATE_FAILED
    assert failed.error_message.endswith("(INTERNAL)")
    if is_restarted:
        await services.stop("export")
        await services.start("export")

    steps = len(services.model.batches)
    await services.storage.RetryGeneration(pb.RetryGenerationRequest(id=generation_id), timeout=60)
    exporting = await services.wait_until(
        generation_id, lambda generation: generation.stage == pb.GENERATION_STAGE_EXPORTING or generation.file_path
    )
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt, exporting.progress) == (pb.GENERATION_STATE_COMPLETED, 2, 1.0)
    assert len(services.model.batches) == steps
    assert figures(done) == figures(undisturbed)
    assert done.model_version == undisturbed.model_version
    assert dict(done.metadata)["audio_attempt"] == 1
    assert "audio_attempt" not in dict(undisturbed.metadata)
    assert dict(done.metadata)["continued_from"] == source.id
    samples = [soundfile.read(services.folder / each.file_path)[0] for each in (done, undisturbed)]
    # The dither of each file is its own.
    np.testing.assert_allclose(samples[0], samples[1], rtol=0, atol=2**-22)


@pytest.mark.slow
async def test_attempts_end_if_resuming_fails_each_time(services):
    with armed(INTERNAL_FAULT):
        generation_id = await services.create(max_attempts=2)
        failed = await services.wait_until_ended(generation_id)
    assert (failed.state, failed.attempt) == (pb.GENERATION_STATE_FAILED, 2)
    assert failed.error_message.endswith("(INTERNAL)")
    assert services.model.prefilled == ["a"]
    assert {path.suffix for path in services.spools()} == {".part", ".json"}


async def test_audio_is_generated_again_if_its_samples_are_damaged(services):
    with armed(INTERNAL_FAULT):
        generation_id = await services.create(max_attempts=1)
        await services.wait_until_ended(generation_id)
    os.truncate(services.folder / "spool" / f"{generation_id}.1.pcm.part", 4)
    await services.storage.RetryGeneration(pb.RetryGenerationRequest(id=generation_id), timeout=60)
    done = await services.wait_until_ended(generation_id)
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 2)
    assert services.model.prefilled == ["a", "a"]


async def test_export_of_a_worker_that_was_killed_is_resumed(stack, monkeypatch):
    await stack.start("storage", "export")
    gate, fsync = Gate(), os.fsync

    def gated_fsync(descriptor: int) -> None:
        gate()
        fsync(descriptor)

    async with server_process(stack, "generation_service.rpc.server", lease_seconds=2) as process:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", gated_fsync)
            generation_id = await stack.create_sketch(seconds=6.0)
            await gate.reached()
        process.send_signal(signal.SIGKILL)
        await process.wait()
    gate.open()
    await stack.wait_until(generation_id, is_pending_after(1))
    assert f"{generation_id}.1.json" in [path.name for path in stack.spools()]
    await stack.start("generation")
    done = await stack.wait_until_ended(generation_id)
    assert (done.state, done.attempt, done.model_version) == (pb.GENERATION_STATE_COMPLETED, 2, Sketch().info.version)
    assert dict(done.metadata)["genre"] == "house"
    # Audio that is generated again would have a spool of its own.
    assert [path.name for path in stack.spools()] == [f"{generation_id}.1.pcm"]
    assert soundfile.info(stack.folder / done.file_path).frames == 6 * 32_000


async def test_figure_that_fails_is_stored_as_not_measured(services):
    with armed("export.tempo_estimation:raise"):
        done = await services.wait_until_ended(await services.create_sketch(seconds=6.0))
    assert done.state == pb.GENERATION_STATE_COMPLETED
    metadata = dict(done.metadata)
    assert metadata["not_measured"].startswith("tempo: an unexpected error occurred (RuntimeError)")
    assert "measured_bpm" not in metadata
    assert "measured_key" in metadata


@pytest.mark.parametrize("bpm", [float("nan"), float("inf"), 1e9, -1.0])
async def test_invalid_metadata_of_a_model_does_not_cost_the_file(services, bpm):
    services.model.metadata = {"bpm": bpm, "notes": "n" * 20_000 if bpm == -1.0 else ""}
    done = await services.wait_until_ended(await services.create())
    assert (done.state, done.attempt) == (pb.GENERATION_STATE_COMPLETED, 1)
