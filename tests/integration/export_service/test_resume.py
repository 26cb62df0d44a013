"""Exports that fail after all samples have arrived, and are resumed without sending the samples again."""

from __future__ import annotations

import asyncio
import json
import os

import numpy as np
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.errors import ServiceError
from dgx_music.export.v1 import export_pb2
from export_service.streaming.recording import Recording
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    build_requests,
    finished_spool,
    kept_spool,
    music,
    new_id,
    output_options,
    raises_rpc_error,
    run_export_service,
)
from tests.support.failpoints import armed
from tests.support.tone_model import Gate

FAULT = "export.before_fsync:EIO"
INTERNAL_FAULT = "export.before_mastering:raise"
NOT_FOUND = "NOT_FOUND", "RECEIVED_AUDIO_NOT_FOUND"


def requests_with_facts(generation_id, samples, **changes):
    """Returns an export with everything that a header can contain."""
    requests = build_requests(generation_id, samples, **changes)
    header = requests[0].header
    header.tempo_hint_bpm = 121.5
    header.sections.add(name="intro", start_frame=0, end_frame=1000)
    header.sections.add(name="A", start_frame=1000, end_frame=len(samples))
    header.generation_facts.update({"bpm": 124.0, "is_synthesiser": True, "genre": "Чай \N{HOT BEVERAGE}"})
    return requests


async def fail_to_export(client, requests, fault=FAULT):
    with armed(fault):
        async with raises_rpc_error("INTERNAL" if fault == INTERNAL_FAULT else "UNAVAILABLE"):
            await client.send(requests)


async def export_up_to_fsync(client, requests):
    """Returns an export that waits to sync its file until the gate opens, and the gate."""
    gate, fsync, upload = Gate(), os.fsync, client.upload()

    def gated_fsync(descriptor):
        gate()
        fsync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", gated_fsync)
        await upload.send(*requests)
        finishing = asyncio.create_task(upload.finish())
        await gate.reached()
    return finishing, gate


@pytest.mark.parametrize("is_restarted", [False, True], ids=["same process", "restarted"])
@pytest.mark.parametrize(("format_", "fault"), [("WAV_PCM_24", INTERNAL_FAULT), ("FLAC_16", FAULT)])
async def test_resumed_export_equals_an_undisturbed_one(tmp_path, is_restarted, format_, fault):
    generation_id, samples = new_id(), music(2)
    output = output_options(format_, sample_rate_hz=48_000, channels=1)
    requests = requests_with_facts(generation_id, samples, output=output)
    async with run_export_service(tmp_path / "undisturbed") as client:
        # The id determines the dither.
        undisturbed = await client.send(requests_with_facts(generation_id, samples, output=output))
        expected = await client.read_audio(generation_id)

    async with run_export_service(tmp_path / "failed") as client:
        await fail_to_export(client, requests, fault)
        assert client.library_files() == set()
        assert client.spools() == kept_spool(generation_id)
        resumed = None if is_restarted else await client.resume(generation_id, 2)
    async with run_export_service(tmp_path / "failed") as client:
        resumed = resumed or await client.resume(generation_id, 2)
        assert resumed.header == requests[0].header
        file = resumed.file
        assert (file.pcm_sha256, file.frames) == (undisturbed.pcm_sha256, undisturbed.frames)
        assert (file.source, file.file, file.normalization) == (
            undisturbed.source,
            undisturbed.file,
            undisturbed.normalization,
        )
        assert (file.tempo, file.key) == (undisturbed.tempo, undisturbed.key)
        listener = await client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL)
        np.testing.assert_array_equal(await listener.read_rest(), expected)
        assert listener.header.attempt == 2
        assert client.files() == {file.file_path, *finished_spool(generation_id, is_converted=True)}


async def test_live_audio_of_a_resumed_export_is_available(client):
    generation_id, samples = new_id(), music(1)
    await fail_to_export(client, build_requests(generation_id, samples))
    await client.resume(generation_id, 2)
    live = await client.read_audio(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE)
    np.testing.assert_array_equal(live, samples)


async def test_samples_stay_while_resuming_fails(client):
    generation_id = new_id()
    await fail_to_export(client, build_requests(generation_id, music(1)))
    for attempt in (2, 3, 3):
        with armed(FAULT):
            async with raises_rpc_error("UNAVAILABLE"):
                await client.resume(generation_id, attempt)
        assert client.spools() == kept_spool(generation_id)
    assert (await client.resume(generation_id, 4)).file.frames == RATE_HZ


async def test_export_whose_response_was_lost_can_be_resumed(client):
    generation_id = new_id()
    exported = await client.export(generation_id, music(1))
    resumed = (await client.resume(generation_id, 2)).file
    assert (resumed.file_path, resumed.pcm_sha256) == (exported.file_path, exported.pcm_sha256)
    assert client.files() == {exported.file_path, f"spool/{generation_id}.1.pcm"}


async def test_resuming_takes_over_from_an_attempt_that_is_mastering(client, monkeypatch):
    generation_id, abort = new_id(), Recording.abort
    older, gate = await export_up_to_fsync(client, build_requests(generation_id, music(1)))

    def abort_before_fsync(recording: Recording, error: ServiceError) -> None:
        abort(recording, error)
        gate.open()

    monkeypatch.setattr(Recording, "abort", abort_before_fsync)
    resuming = asyncio.create_task(client.resume(generation_id, 2))
    async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
        await older
    assert (await resuming).file.frames == RATE_HZ
    listener = await client.listen(generation_id)
    assert listener.header.attempt == 2
    await listener.read_rest()


async def test_caller_that_goes_away_while_mastering_leaves_the_samples(client):
    generation_id = new_id()
    finishing, gate = await export_up_to_fsync(client, build_requests(generation_id, music(1)))
    finishing.cancel()
    resuming = asyncio.create_task(client.resume(generation_id, 2))
    gate.open()
    assert (await resuming).file.frames == RATE_HZ


async def test_incomplete_samples_are_not_kept(client):
    generation_id, requests = new_id(), build_requests(new_id(), music(1))
    requests[0].header.audio.generation_id = generation_id
    async with raises_rpc_error("DATA_LOSS"):
        await client.send(requests[:-1])
    async with raises_rpc_error(*NOT_FOUND):
        await client.resume(generation_id, 2)
    assert client.files() == set()


async def test_resuming_aborts_an_attempt_that_is_still_receiving(client):
    generation_id = new_id()
    upload = client.upload()
    await upload.send(*build_requests(generation_id, music(1))[:3])
    listener = await client.listen(generation_id, wait_seconds=5)
    await listener.read_until(1)
    async with raises_rpc_error(*NOT_FOUND):
        await client.resume(generation_id, 2)
    async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
        await upload.call
    async with raises_rpc_error("ABORTED", "ATTEMPT_BROKE_OFF"):
        await listener.read_rest()
    assert client.files() == set()


def flip_a_bit(folder, generation_id):
    with (folder / f"{generation_id}.1.pcm.part").open("r+b") as file:
        file.seek(1000)
        (byte,) = file.read(1)
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


def truncate(folder, generation_id):
    os.truncate(folder / f"{generation_id}.1.pcm.part", 10_001)


def remove_samples(folder, generation_id):
    (folder / f"{generation_id}.1.pcm.part").unlink()


def edit_header(**changes):
    def edit(folder, generation_id):
        path = folder / f"{generation_id}.1.json"
        description = json.loads(path.read_text())
        description["header"].update(changes)
        path.write_text(json.dumps(description))

    return edit


def cut_description(folder, generation_id):
    os.truncate(folder / f"{generation_id}.1.json", 100)


DAMAGES = {
    "flipped bit": flip_a_bit,
    "truncated": truncate,
    "no samples": remove_samples,
    "invalid tempo": edit_header(tempoHintBpm=-5.0),
    "invalid type": edit_header(tempoHintBpm="fast"),
    "unreadable description": cut_description,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
async def test_damaged_samples_are_discarded(tmp_path, damage):
    generation_id = new_id()
    async with run_export_service(tmp_path) as client:
        await fail_to_export(client, build_requests(generation_id, music(1)))
    damage(tmp_path / "spool", generation_id)
    async with run_export_service(tmp_path) as client:
        for _ in range(2):
            async with raises_rpc_error(*NOT_FOUND, match="generate it again"):
                await client.resume(generation_id, 2)
        assert client.files() == set()
        assert (await client.export(generation_id, music(1), attempt=2)).frames == RATE_HZ


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, remove_samples])
async def test_samples_damaged_while_the_service_runs_are_discarded(client, damage):
    generation_id = new_id()
    await fail_to_export(client, build_requests(generation_id, music(1)))
    damage(client.data_dir / "spool", generation_id)
    async with raises_rpc_error(*NOT_FOUND, match="damaged"):
        await client.resume(generation_id, 2)
    assert client.files() == set()


async def test_kept_samples_are_removed_with_the_generation(client):
    generation_id = new_id()
    await fail_to_export(client, build_requests(generation_id, music(1)))
    await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS)
    assert client.files() == set()
    async with raises_rpc_error(*NOT_FOUND):
        await client.resume(generation_id, 2)


@pytest.mark.parametrize("attempt", [1, 2])
async def test_kept_samples_are_removed_by_a_new_export(client, attempt):
    generation_id = new_id()
    await fail_to_export(client, build_requests(generation_id, music(1)))
    exported = await client.export(generation_id, music(2), attempt=attempt)
    assert client.files() == {exported.file_path, f"spool/{generation_id}.{attempt}.pcm"}


async def test_kept_samples_expire(tmp_path):
    generation_id = new_id()
    async with run_export_service(tmp_path) as client:
        await fail_to_export(client, build_requests(generation_id, music(1)))
    async with run_export_service(tmp_path, failed_spool_keep_seconds=0) as client:
        assert client.files() == set()
        await fail_to_export(client, build_requests(generation_id, music(1)))
        async with raises_rpc_error(*NOT_FOUND):
            await client.resume(generation_id, 2)
    assert client.files() == set()


async def test_full_disk_while_describing_the_samples_does_not_fail_the_export(client):
    generation_id = new_id()
    (client.data_dir / "spool" / f"{generation_id}.1.json.part").mkdir()  # Writing a file of this name fails.
    exported = await client.export(generation_id, music(1))
    assert exported.frames == RATE_HZ


async def test_older_attempts_and_invalid_requests_are_rejected(client):
    generation_id = new_id()
    await client.export(generation_id, music(1), attempt=3)
    async with raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"):
        await client.resume(generation_id, 2)
    async with raises_rpc_error("INVALID_ARGUMENT", field="attempt"):
        await client.resume(generation_id, 0)
    async with raises_rpc_error("INVALID_ARGUMENT", field="generation_id"):
        await client.resume("../outputs", 2)
    async with raises_rpc_error(*NOT_FOUND, match="no attempt was received completely"):
        await client.resume(new_id(), 1)


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ([(-1, 5)], "sections[0].start_frame"),
        ([(0, 500), (400, 600), (399, 700)], "sections[2].start_frame"),
        ([(5, 5)], "sections[0].end_frame"),
        ([(0, 100), (100, RATE_HZ + 1)], "sections[1].end_frame"),
        ([(i, i + 1) for i in range(1001)], "sections"),
    ],
)
async def test_invalid_sections_are_rejected(client, sections, field):
    requests = build_requests(new_id(), music(1))
    for start, end in sections:
        requests[0].header.sections.add(name="A", start_frame=start, end_frame=end)
    async with raises_rpc_error("INVALID_ARGUMENT", field=f"header.{field}"):
        await client.send(requests[:1], close=False)


@pytest.mark.parametrize("facts", [{"bpm": float("nan")}, {"text": "x" * 17_000}], ids=["NaN", "too large"])
async def test_invalid_facts_are_rejected(client, facts):
    requests = build_requests(new_id(), music(1))
    requests[0].header.generation_facts.update(facts)
    async with raises_rpc_error("INVALID_ARGUMENT", field="header.generation_facts"):
        await client.send(requests[:1], close=False)
