"""Audio streams: early, late, resumed, slow and waiting listeners."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    build_requests,
    music,
    new_id,
    raises_rpc_error,
    run_export_service,
)


async def test_early_late_and_resumed_listeners_get_every_sample(client):
    generation_id, samples = new_id(), music(4)
    requests = build_requests(generation_id, samples)
    early = asyncio.create_task(client.listen(generation_id, wait_seconds=10))
    upload = client.upload()
    await upload.send(*requests[:3])
    early = await early
    assert early.header.level == audio_pb2.AUDIO_LEVEL_LIVE
    assert early.header.expected_frames == len(samples)
    first = await early.read_until(16_384)  # Everything sent so far, before the rest is sent.
    np.testing.assert_array_equal(first, samples[:16_384])
    late = await client.listen(generation_id, start_frame=12_345)
    ahead = await client.listen(generation_id, start_frame=100_000)
    np.testing.assert_array_equal(await late.read_until(16_384 - 12_345), samples[12_345:16_384])
    left = await client.listen(generation_id)
    await left.read_until(8_192)
    left.call.cancel()
    rest = asyncio.gather(early.read_rest(), late.read_rest(), ahead.read_rest())
    await upload.send(*requests[3:])
    await upload.finish()
    for audio, start in zip(await rest, (0, 12_345, 100_000), strict=True):
        np.testing.assert_array_equal(audio, samples[start:])
    resumed = await client.read_audio(generation_id, left.reader.frames, audio_pb2.AUDIO_LEVEL_LIVE)
    np.testing.assert_array_equal(np.concatenate([left.samples, resumed]), samples)


async def test_stalled_listener_does_not_delay_export(client):
    generation_id, samples = new_id(), music(60)
    upload, requests = client.upload(), build_requests(generation_id, samples)
    await upload.send(*requests[:2])
    slow = await client.listen(generation_id, wait_seconds=5)
    await upload.send(*requests[2:])
    await upload.finish()
    np.testing.assert_array_equal(await slow.read_rest(), samples)


async def test_stream_of_finished_file_from_any_frame(client):
    generation_id = new_id()
    response = await client.export(generation_id, music(4))
    read, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32")
    listener = await client.listen(generation_id)
    assert listener.header.level == audio_pb2.AUDIO_LEVEL_FINAL
    assert listener.header.expected_frames == 4 * RATE_HZ
    np.testing.assert_array_equal(await listener.read_rest(), read)
    np.testing.assert_array_equal(await client.read_audio(generation_id, 99_999), read[99_999:])
    assert len(await client.read_audio(generation_id, 4 * RATE_HZ)) == 0
    for level in (audio_pb2.AUDIO_LEVEL_LIVE, audio_pb2.AUDIO_LEVEL_FINAL):
        async with raises_rpc_error("OUT_OF_RANGE", "PAST_THE_END"):
            await client.read_audio(generation_id, 4 * RATE_HZ + 1, level)


async def test_start_past_end_of_unknown_length_is_out_of_range(client):
    generation_id, samples = new_id(), music(1)
    upload, requests = client.upload(), build_requests(generation_id, samples, expected=0)
    await upload.send(*requests[:2])
    listener = await client.listen(generation_id, RATE_HZ + 1, wait_seconds=5)
    assert listener.header.expected_frames == 0
    await upload.send(*requests[2:])
    await upload.finish()
    async with raises_rpc_error("OUT_OF_RANGE", "PAST_THE_END"):
        await listener.read_rest()


async def test_wait_for_finished_file(client):
    generation_id, samples = new_id(), music(1)
    waiting = asyncio.create_task(client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL, wait_seconds=10))
    await client.export(generation_id, samples)
    assert len(await (await waiting).read_rest()) == RATE_HZ


async def test_existing_audio_is_found_with_tiny_wait(client):
    generation_id = new_id()
    await client.export(generation_id, music(1))
    audio = await client.read_audio(generation_id, 0, audio_pb2.AUDIO_LEVEL_FINAL, wait_seconds=1e-9)
    assert len(audio) == RATE_HZ


async def test_upper_case_id(client):
    generation_id = new_id()
    await client.export(generation_id, music(1))
    assert len(await client.read_audio(generation_id.upper())) == RATE_HZ


@pytest.mark.parametrize("wait", [0.0, 0.05])
async def test_unknown_id_is_not_found(client, wait):
    async with raises_rpc_error("NOT_FOUND", "AUDIO_NOT_FOUND"):
        await client.read_audio(new_id(), wait_seconds=wait)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"generation_id": "x/../y"}, "generation_id"),
        ({"start_frame": -1}, "start_frame"),
        ({"level": 9}, "level"),
        ({"wait_seconds": -1}, "wait_seconds"),
        ({"wait_seconds": 3601}, "wait_seconds"),
        ({"wait_seconds": float("nan")}, "wait_seconds"),
        ({"sample_rate_hz": 7_999}, "sample_rate_hz"),
        ({"sample_rate_hz": 192_001}, "sample_rate_hz"),
        ({"channels": -1}, "channels"),
        ({"channels": 3}, "channels"),
        ({"last_seconds": -1}, "last_seconds"),
        ({"last_seconds": float("inf")}, "last_seconds"),
        ({"last_seconds": 1, "start_frame": 1}, "last_seconds"),
    ],
)
async def test_invalid_stream_request_is_rejected(client, request_, field):
    async with raises_rpc_error("INVALID_ARGUMENT", field=field):
        await client.read_audio(**{"generation_id": new_id(), **request_})


async def test_live_audio_survives_restart_until_it_expires(tmp_path):
    generation_id, samples = new_id(), music(2)
    async with run_export_service(tmp_path) as client:
        await client.export(generation_id, samples)
    async with run_export_service(tmp_path) as client:
        listener = await client.listen(generation_id, 777, audio_pb2.AUDIO_LEVEL_LIVE)
        assert listener.header.expected_frames == len(samples)
        np.testing.assert_array_equal(await listener.read_rest(), samples[777:])
        assert f"spool/{generation_id}.1.pcm" in client.files()
    async with run_export_service(tmp_path, spool_keep_seconds=0) as client:
        async with raises_rpc_error("NOT_FOUND", match="level FINAL"):
            await client.read_audio(generation_id, 0, audio_pb2.AUDIO_LEVEL_LIVE)
        assert not [name for name in client.files() if name.startswith("spool")]


async def test_expired_spool_is_removed(tmp_path):
    generation_id = new_id()
    async with run_export_service(tmp_path, spool_keep_seconds=0) as client:
        response = await client.export(generation_id, music(0.5))
        async with raises_rpc_error("NOT_FOUND", match="level FINAL"):
            await client.read_audio(generation_id, 0, audio_pb2.AUDIO_LEVEL_LIVE, wait_seconds=5)
        assert len(await client.read_audio(generation_id)) == RATE_HZ // 2
    assert client.files() == {response.file_path}


async def test_drain_ends_waiting_listeners_and_lets_export_finish(tmp_path):
    async with run_export_service(tmp_path, grace_seconds=10) as client:
        generation_id, samples = new_id(), music(1)
        waiting = asyncio.create_task(client.read_audio(new_id(), wait_seconds=600))
        upload, requests = client.upload(), build_requests(generation_id, samples)
        await upload.send(*requests[:2])
        listener = await client.listen(generation_id, wait_seconds=5)
        await upload.send(*requests[2:])
        finishing = asyncio.create_task(asyncio.wait_for(upload.finish(), TIMEOUT_SECONDS))
        np.testing.assert_array_equal(await listener.read_rest(), samples)
    assert (await finishing).frames == RATE_HZ
    async with raises_rpc_error("UNAVAILABLE", "DRAINING"):
        await waiting
