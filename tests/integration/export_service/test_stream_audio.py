"""Listeners over real gRPC: early, late, resumed, slow, and those that wait."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from tests.support.export_client import RATE, TIMEOUT, music, new_id, parts, refused, serving


async def test_listeners_early_late_and_resumed_hear_every_sample(client):
    generation_id, samples = new_id(), music(4)
    good = parts(generation_id, samples)
    early = asyncio.create_task(client.listen(generation_id, wait_seconds=10))
    upload = client.upload()
    await upload.send(*good[:3])
    early = await early
    assert early.header.level == audio_pb2.AUDIO_LEVEL_LIVE
    assert early.header.expected_frames == len(samples)
    first = await early.until(16_384)  # All that was sent, while the rest is not yet.
    np.testing.assert_array_equal(first, samples[:16_384])
    late = await client.listen(generation_id, start_frame=12_345)
    ahead = await client.listen(generation_id, start_frame=100_000)
    np.testing.assert_array_equal(await late.until(16_384 - 12_345), samples[12_345:16_384])
    left = await client.listen(generation_id)
    await left.until(8_192)
    left.call.cancel()
    rest = asyncio.gather(early.rest(), late.rest(), ahead.rest())
    await upload.send(*good[3:])
    await upload.finish()
    for heard, start in zip(await rest, (0, 12_345, 100_000), strict=True):
        np.testing.assert_array_equal(heard, samples[start:])
    resumed = await client.hear(generation_id, left.reader.frames, audio_pb2.AUDIO_LEVEL_LIVE)
    np.testing.assert_array_equal(np.concatenate([left.samples, resumed]), samples)


async def test_a_listener_that_does_not_read_slows_nobody(client):
    generation_id, samples = new_id(), music(60)
    upload, good = client.upload(), parts(generation_id, samples)
    await upload.send(*good[:2])
    slow = await client.listen(generation_id, wait_seconds=5)
    await upload.send(*good[2:])
    await upload.finish()
    np.testing.assert_array_equal(await slow.rest(), samples)


async def test_the_finished_files_samples_from_any_frame(client):
    generation_id = new_id()
    response = await client.export(generation_id, music(4))
    read, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32")
    heard = await client.listen(generation_id)
    assert heard.header.level == audio_pb2.AUDIO_LEVEL_FINAL
    assert heard.header.expected_frames == 4 * RATE
    np.testing.assert_array_equal(await heard.rest(), read)
    np.testing.assert_array_equal(await client.hear(generation_id, 99_999), read[99_999:])
    assert len(await client.hear(generation_id, 4 * RATE)) == 0
    for level in (audio_pb2.AUDIO_LEVEL_LIVE, audio_pb2.AUDIO_LEVEL_FINAL):
        async with refused("OUT_OF_RANGE", "PAST_THE_END"):
            await client.hear(generation_id, 4 * RATE + 1, level)


async def test_past_the_end_of_what_was_not_known_beforehand(client):
    generation_id, samples = new_id(), music(1)
    upload, good = client.upload(), parts(generation_id, samples, expected=0)
    await upload.send(*good[:2])
    heard = await client.listen(generation_id, RATE + 1, wait_seconds=5)
    assert heard.header.expected_frames == 0
    await upload.send(*good[2:])
    await upload.finish()
    async with refused("OUT_OF_RANGE", "PAST_THE_END"):
        await heard.rest()


async def test_waiting_for_the_finished_file(client):
    generation_id, samples = new_id(), music(1)
    waiting = asyncio.create_task(client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL, wait_seconds=10))
    await client.export(generation_id, samples)
    assert len(await (await waiting).rest()) == RATE


async def test_what_is_there_is_heard_however_short_the_wait(client):
    generation_id = new_id()
    await client.export(generation_id, music(1))
    heard = await client.hear(generation_id, 0, audio_pb2.AUDIO_LEVEL_FINAL, wait_seconds=1e-9)
    assert len(heard) == RATE


async def test_an_id_may_be_in_upper_case(client):
    generation_id = new_id()
    await client.export(generation_id, music(1))
    assert len(await client.hear(generation_id.upper())) == RATE


@pytest.mark.parametrize("wait", [0.0, 0.05])
async def test_nothing_to_hear(client, wait):
    async with refused("NOT_FOUND", "AUDIO_NOT_FOUND"):
        await client.hear(new_id(), wait_seconds=wait)


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
async def test_listening_requests_that_can_not_be(client, request_, field):
    async with refused("INVALID_ARGUMENT", field=field):
        await client.hear(**{"generation_id": new_id(), **request_})


async def test_live_samples_outlive_the_process_but_not_their_time(tmp_path):
    generation_id, samples = new_id(), music(2)
    async with serving(tmp_path) as client:
        await client.export(generation_id, samples)
    async with serving(tmp_path) as client:
        heard = await client.listen(generation_id, 777, audio_pb2.AUDIO_LEVEL_LIVE)
        assert heard.header.expected_frames == len(samples)
        np.testing.assert_array_equal(await heard.rest(), samples[777:])
        assert f"spool/{generation_id}.1.pcm" in client.files()
    async with serving(tmp_path, spool_keep_seconds=0) as client:
        async with refused("NOT_FOUND", says="level FINAL"):
            await client.hear(generation_id, 0, audio_pb2.AUDIO_LEVEL_LIVE)
        assert not [name for name in client.files() if name.startswith("spool")]


async def test_spools_are_swept_when_their_time_is_over(tmp_path):
    generation_id = new_id()
    async with serving(tmp_path, spool_keep_seconds=0) as client:
        response = await client.export(generation_id, music(0.5))
        async with refused("NOT_FOUND", says="level FINAL"):
            await client.hear(generation_id, 0, audio_pb2.AUDIO_LEVEL_LIVE, wait_seconds=5)
        assert len(await client.hear(generation_id)) == RATE // 2
    assert client.files() == {response.file_path}


async def test_draining_ends_those_who_wait_and_lets_an_export_finish(tmp_path):
    async with serving(tmp_path, grace_seconds=10) as client:
        generation_id, samples = new_id(), music(1)
        waiting = asyncio.create_task(client.hear(new_id(), wait_seconds=600))
        upload, good = client.upload(), parts(generation_id, samples)
        await upload.send(*good[:2])
        heard = await client.listen(generation_id, wait_seconds=5)
        await upload.send(*good[2:])
        finishing = asyncio.create_task(asyncio.wait_for(upload.finish(), TIMEOUT))
        np.testing.assert_array_equal(await heard.rest(), samples)
    assert (await finishing).frames == RATE
    async with refused("UNAVAILABLE", "DRAINING"):
        await waiting
