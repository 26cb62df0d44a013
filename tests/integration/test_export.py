"""The export service over real gRPC: streams in, files, listeners, downloads out."""

from __future__ import annotations

import asyncio
import hashlib
import io
import itertools
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator

import grpc
import numpy as np
import pyebur128
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2, export_pb2_grpc
from export_service.config import ExportSettings
from export_service.server import build
from service_runtime.channel import connect
from service_runtime.pcm import PcmWriter
from tests.export_client import (
    RATE,
    TIMEOUT,
    Client,
    Request,
    header,
    music,
    new_id,
    parts,
    refused,
    serving,
)


@pytest.fixture
async def client(tmp_path) -> AsyncIterator[Client]:
    async with serving(tmp_path) as client:
        yield client


# Export.


@pytest.mark.parametrize("channels", [1, 2])
async def test_a_finished_measured_tagged_file(client, channels):
    generation_id, samples = new_id(), music(5, channels)
    response = await client.export(generation_id, samples)
    path = client.data_dir / response.file_path
    assert path.name == f"{generation_id}.wav"
    assert path.parent.parent.parent.parent == client.data_dir / "outputs"
    assert response.file_size_bytes == path.stat().st_size
    assert response.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert response.pcm_sha256 == hashlib.sha256(samples.tobytes()).hexdigest()
    assert (response.frames, response.duration_seconds) == (5 * RATE, 5.0)
    assert (response.sample_rate_hz, response.channels) == (RATE, channels)
    assert response.format == audio_pb2.FILE_FORMAT_WAV_PCM_24

    read, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert (rate, read.shape) == (RATE, samples.shape)
    mode = pyebur128.MeasurementMode
    meter = pyebur128.R128State(channels, RATE, mode.MODE_I | mode.MODE_TRUE_PEAK)
    meter.add_frames(read.ravel(), len(read))
    assert pyebur128.get_loudness_global(meter) == pytest.approx(-16, abs=0.05)
    assert pyebur128.get_true_peak(meter, 0) <= 10 ** (-1 / 20)

    assert response.normalization.mode == export_pb2.NORMALIZATION_MODE_LINEAR
    gain = response.normalization.gain_db
    assert response.file.integrated_lufs == pytest.approx(-16, abs=0.01)
    for figure in ("integrated_lufs", "max_momentary_lufs", "max_short_term_lufs", "true_peak_dbtp"):
        assert getattr(response.file, figure) == pytest.approx(getattr(response.source, figure) + gain)
    assert response.file.range_lu == response.source.range_lu
    np.testing.assert_allclose(read, samples * 10 ** (gain / 20), atol=2**-23)
    with soundfile.SoundFile(path) as file:
        assert generation_id in file.comment
        assert "AI-generated" in file.comment
        assert file.genre == "house"
    assert client.files() == {response.file_path, f"spool/{generation_id}.1.pcm"}


async def test_limited_to_meet_target_and_ceiling_together(client):
    samples = music(5, level=0.6)
    samples[1000:1003] = 0.9
    response = await client.export(new_id(), samples)
    said = response.normalization
    assert said.mode == export_pb2.NORMALIZATION_MODE_LIMITED
    assert (said.shortfall_lu, said.reason) == (0, "")
    assert 0 < said.limited_share < 0.1
    assert 0 < said.largest_reduction_db <= 6
    assert response.file.true_peak_dbtp <= -1.1
    read, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32", always_2d=True)
    mode = pyebur128.MeasurementMode
    meter = pyebur128.R128State(2, RATE, mode.MODE_I | mode.MODE_TRUE_PEAK)
    meter.add_frames(read.ravel(), len(read))
    assert pyebur128.get_loudness_global(meter) == pytest.approx(-16, abs=0.1)
    assert response.file.integrated_lufs == pytest.approx(pyebur128.get_loudness_global(meter), abs=0.01)
    assert pyebur128.get_true_peak(meter, 0) <= 10 ** (-1 / 20)


async def test_beyond_6_db_of_limiting_it_stops_and_says_so(client):
    samples = music(5, level=0.2)
    samples[1000:1003] = 0.9
    response = await client.export(new_id(), samples)
    said = response.normalization
    assert said.mode == export_pb2.NORMALIZATION_MODE_LIMITED
    assert said.largest_reduction_db == pytest.approx(6, abs=0.01)
    assert response.file.true_peak_dbtp <= -1
    assert response.file.integrated_lufs == pytest.approx(-16 - said.shortfall_lu, abs=0.001)
    assert "held back" in said.reason


async def test_too_short_for_a_loudness_is_left_alone(client):
    samples = music(0.3)
    response = await client.export(new_id(), samples)
    assert response.normalization.mode == export_pb2.NORMALIZATION_MODE_NONE
    assert "too short" in response.normalization.reason
    assert not response.source.HasField("integrated_lufs")
    read, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32")
    np.testing.assert_allclose(read, samples, atol=2**-23)


async def test_digital_silence(client):
    response = await client.export(new_id(), np.zeros((RATE, 2), dtype=np.float32))
    assert response.normalization.mode == export_pb2.NORMALIZATION_MODE_NONE
    assert "too quiet" in response.normalization.reason
    assert not response.file.HasField("true_peak_dbtp")
    assert response.frames == RATE


async def test_one_frame(client):
    response = await client.export(new_id(), np.full((1, 1), 0.5, dtype=np.float32))
    assert soundfile.info(client.data_dir / response.file_path).frames == 1


@pytest.mark.parametrize("mode", [export_pb2.NORMALIZATION_MODE_LINEAR, export_pb2.NORMALIZATION_MODE_LIMITED])
async def test_the_same_stream_gives_the_same_file_however_it_is_cut(client, mode):
    samples, generation_id = music(3, level=0.6), new_id()
    if mode == export_pb2.NORMALIZATION_MODE_LIMITED:
        samples[1000:1003] = 0.9
    one = await client.export(generation_id, samples)
    assert one.normalization.mode == mode
    writer, view, chunks = PcmWriter(2), samples.tobytes(), []
    for start, end in itertools.pairwise(range(0, len(view) + 1, 8 * 96)):
        chunks += [Request(chunk=chunk) for chunk in writer.chunks(view[start:end])]
    chunks = [header(generation_id, samples), *chunks, Request(end=writer.end())]
    other = await client.send(chunks)
    assert other.file_sha256 == one.file_sha256


async def test_absurdly_loud_samples_are_brought_down(client):
    response = await client.export(new_id(), music(1, level=1e30))
    assert response.file.integrated_lufs == pytest.approx(-16, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"generation_id": "../../etc/passwd"}, "header.audio.generation_id"),
        ({"generation_id": "123E4567-E89B-12D3-A456-426614174000"}, "header.audio.generation_id"),
        ({"generation_id": ""}, "header.audio.generation_id"),
        ({"attempt": 0}, "header.audio.attempt"),
        ({"level": audio_pb2.AUDIO_LEVEL_FINAL}, "header.audio.level"),
        ({"level": 0}, "header.audio.level"),
        ({"sample_rate_hz": 100}, "header.audio.sample_rate_hz"),
        ({"channels": 9}, "header.audio.channels"),
        ({"tags": export_pb2.Tags(bpm=float("nan"))}, "header.tags.bpm"),
    ],
)
async def test_a_header_that_can_not_be(client, changes, field):
    sent = header(changes.pop("generation_id", new_id()), music(0.1), **changes)
    async with refused("INVALID_ARGUMENT", field=field):
        await client.send([sent], close=False)
    assert client.files() == set()


def damaged(case: str, generation_id: str) -> tuple[list[Request], bool]:
    """What is sent, and whether the stream is then closed."""
    good = parts(generation_id, music(2))
    match case:
        case "gap":
            return [*good[:2], good[3]], False
        case "repeat":
            return [*good[:3], good[2]], False
        case "checksum":
            good[2].chunk.crc32c ^= 1
            return good[:3], False
        case "half a frame":
            good[2].chunk.pcm = good[2].chunk.pcm[:-2]
            return good[:3], False
        case "wrong start":
            good[1].chunk.start_frame = 1
            return good[:2], False
        case "total":
            good[-1].end.total_frames += 1
            return good, False
        case "hash":
            good[-1].end.sha256 = "0" * 64
            return good, False
        case "no end":
            return good[:-1], True
        case "after end":
            return [*good, good[1]], False
        case "fewer than expected":
            good[0].header.audio.expected_frames += 1
            return good, True
        case _:
            good[0].header.audio.expected_frames = 8192
            return good[:3], False


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("gap", "CHUNK_OUT_OF_ORDER"),
        ("repeat", "CHUNK_OUT_OF_ORDER"),
        ("checksum", "CHUNK_CHECKSUM"),
        ("half a frame", "CHUNK_SIZE"),
        ("wrong start", "CHUNK_OUT_OF_ORDER"),
        ("total", "END_MISMATCH"),
        ("hash", "END_MISMATCH"),
        ("no end", "END_MISSING"),
        ("after end", "PART_AFTER_END"),
        ("fewer than expected", "FRAMES_UNEXPECTED"),
        ("more than expected", "FRAMES_UNEXPECTED"),
    ],
)
async def test_what_does_not_add_up_leaves_nothing(client, case, reason):
    generation_id = new_id()
    async with refused("DATA_LOSS", reason):
        await client.send(*damaged(case, generation_id))
    assert client.files() == set()
    await client.export(generation_id, music(0.5))  # The same attempt may be made again.


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
async def test_what_is_no_number_is_named(client, bad):
    samples = music(3)
    samples[70_001, 1] = bad
    async with refused("INVALID_ARGUMENT", field="chunk.pcm", says="frame 70001, channel 1"):
        await client.send(parts(new_id(), samples)[: 2 + 70_001 // 8192], close=False)
    assert client.files() == set()


@pytest.mark.parametrize(
    ("requests", "field", "close"),
    [
        (lambda good: good[1:2], "header", False),
        (lambda good: [], "header", True),
        (lambda good: [good[0], good[0]], "header", False),
        (lambda good: [good[0], Request()], "part", False),
        (lambda good: [good[0], Request(end=PcmWriter(2).end())], "chunk", True),
    ],
    ids=["no header", "nothing", "two headers", "an empty part", "no samples"],
)
async def test_parts_out_of_place(client, requests, field, close):
    good = parts(new_id(), music(0.2), expected=0)
    async with refused("INVALID_ARGUMENT", field=field):
        await client.send(requests(good), close)
    assert client.files() == set()


async def test_a_caller_that_goes_away_leaves_nothing(client):
    generation_id, samples = new_id(), music(2)
    upload = client.upload()
    good = parts(generation_id, samples)
    await upload.send(*good[:3])
    heard = await client.listen(generation_id, wait_seconds=5)
    await heard.until(8192)
    upload.call.cancel()
    async with refused("ABORTED", "ATTEMPT_BROKE_OFF"):
        await heard.rest()
    await client.export(generation_id, samples)  # Comes after the cleaning up.
    assert len(client.files()) == 2


# Attempts.


async def test_a_newer_attempt_supersedes_an_older_one_in_progress(client):
    generation_id, samples = new_id(), music(3)
    older, good = client.upload(), parts(generation_id, samples)
    await older.send(*good[:4])
    heard = await client.listen(generation_id, wait_seconds=5)
    await heard.until(24_576)
    response = await client.export(generation_id, samples, attempt=2)
    async with refused("ABORTED", "ATTEMPT_SUPERSEDED"):
        await older.call
    async with refused("ABORTED", "ATTEMPT_BROKE_OFF", says=f"start_frame {heard.reader.frames}"):
        await heard.rest()
    resumed = await client.listen(generation_id, heard.reader.frames, audio_pb2.AUDIO_LEVEL_LIVE)
    assert resumed.header.attempt == 2
    np.testing.assert_array_equal(np.concatenate([heard.samples, await resumed.rest()]), samples)
    assert client.files() == {response.file_path, f"spool/{generation_id}.2.pcm"}


async def test_an_attempt_in_progress_is_not_made_twice(client):
    generation_id, samples = new_id(), music(1)
    upload, good = client.upload(), parts(generation_id, samples)
    await upload.send(*good[:2])
    heard = await client.listen(generation_id, wait_seconds=5)
    await heard.until(1)
    async with refused("ABORTED", "ATTEMPT_IN_PROGRESS"):
        await client.send(good[:1], close=False)
    async with refused("FAILED_PRECONDITION", "EXPORT_IN_PROGRESS"):
        await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT)
    await upload.send(*good[2:])
    assert (await upload.finish()).frames == RATE
    await heard.rest()


async def test_a_finished_one_is_replaced_by_the_same_or_a_newer_attempt_only(client):
    generation_id = new_id()
    await client.export(generation_id, music(1), attempt=2)
    async with refused("ABORTED", "ATTEMPT_SUPERSEDED"):
        await client.send([header(generation_id, music(1))], close=False)
    again = await client.export(generation_id, music(2), attempt=2)
    assert again.frames == 2 * RATE
    assert client.files() == {again.file_path, f"spool/{generation_id}.2.pcm"}
    newer = await client.export(generation_id, music(3), attempt=3)
    assert client.files() == {newer.file_path, f"spool/{generation_id}.3.pcm"}
    assert newer.file_path == again.file_path
    heard = await client.listen(generation_id)
    assert heard.header.attempt == 3
    await heard.rest()


async def test_a_stale_attempt_is_known_by_the_file_when_nothing_else_remembers(tmp_path):
    generation_id = new_id()
    async with serving(tmp_path, spool_keep_seconds=0) as client:
        await client.export(generation_id, music(1), attempt=2)
    async with serving(tmp_path, spool_keep_seconds=0) as client:
        async with refused("ABORTED", "ATTEMPT_SUPERSEDED"):
            await client.send([header(generation_id, music(1))], close=False)
        heard = await client.listen(generation_id)
        assert (heard.header.attempt, heard.header.level) == (2, audio_pb2.AUDIO_LEVEL_FINAL)
        await heard.rest()


# Listening.


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


# Files.


async def fetched(client, generation_id, start_byte=0, byte_count=0):
    call = client.stub.Download(
        export_pb2.DownloadRequest(generation_id=generation_id, start_byte=start_byte, byte_count=byte_count),
        timeout=TIMEOUT,
    )
    return [response async for response in call]


async def test_download_whole_and_in_ranges(client):
    generation_id = new_id()
    response = await client.export(generation_id, music(2))
    content = (client.data_dir / response.file_path).read_bytes()
    messages = await fetched(client, generation_id)
    assert b"".join(message.data for message in messages) == content
    assert max(len(message.data) for message in messages) == 65_536
    assert (messages[0].file_name, messages[0].file_size_bytes) == (f"{generation_id}.wav", len(content))
    assert all(not message.file_name and not message.file_size_bytes for message in messages[1:])
    for start, count in [(0, 1), (65_535, 2), (1_000, 200_000), (len(content) - 5, 0), (len(content) - 5, 50)]:
        part = await fetched(client, generation_id, start, count)
        assert b"".join(message.data for message in part) == content[start:][: count or None]
    (empty,) = await fetched(client, generation_id, len(content))
    assert (empty.data, empty.file_size_bytes) == (b"", len(content))
    async with refused("OUT_OF_RANGE", "PAST_THE_END"):
        await fetched(client, generation_id, len(content) + 1)
    async with refused("INVALID_ARGUMENT", field="start_byte"):
        await fetched(client, generation_id, -1)
    async with refused("INVALID_ARGUMENT", field="byte_count"):
        await fetched(client, generation_id, 0, -1)


async def test_waveform(client):
    generation_id = new_id()
    await client.export(generation_id, music(2))
    request = export_pb2.GetWaveformRequest(generation_id=generation_id)
    response = await client.stub.GetWaveform(request, timeout=TIMEOUT)
    assert (response.version, response.channels, response.bits, response.sample_rate) == (2, 1, 8, RATE)
    assert (response.length, response.samples_per_pixel) == (800, 80)
    assert len(response.data) == 1600
    assert min(response.data) < -10
    assert max(response.data) > 10
    request.points = 10_001
    async with refused("INVALID_ARGUMENT", field="points"):
        await client.stub.GetWaveform(request, timeout=TIMEOUT)


async def test_delete_leaves_nothing_but_lets_those_who_listen_finish(client):
    generation_id, samples = new_id(), music(60)
    await client.export(generation_id, samples)
    live = await client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE)
    final = await client.listen(generation_id)
    await asyncio.gather(live.until(1), final.until(1))
    request = export_pb2.DeleteFileRequest(generation_id=generation_id)
    await client.stub.DeleteFile(request, timeout=TIMEOUT)
    assert client.files() == set()
    np.testing.assert_array_equal(await live.rest(), samples)
    assert len(await final.rest()) == len(samples)
    for call in (
        client.stub.DeleteFile(request, timeout=TIMEOUT),
        client.stub.GetWaveform(export_pb2.GetWaveformRequest(generation_id=generation_id), timeout=TIMEOUT),
    ):
        async with refused("NOT_FOUND", "FILE_NOT_FOUND"):
            await call
    async with refused("NOT_FOUND", "FILE_NOT_FOUND"):
        await fetched(client, generation_id)
    async with refused("NOT_FOUND"):
        await client.hear(generation_id)
    await client.export(generation_id, music(0.5))


# Clips.


def tone(rate: int, seconds: float, channels: int) -> np.ndarray:
    """[frames, channels]: 997 Hz, the second channel half as loud."""
    wave = 0.5 * np.sin(2 * np.pi * 997 * np.arange(round(seconds * rate)) / rate)
    return np.stack([wave, wave / 2][:channels], axis=1).astype(np.float32)


def file_of(samples: np.ndarray, rate: int = 44_100, kind: str = "WAV", subtype: str = "PCM_24") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def error_db(heard: np.ndarray, meant: np.ndarray, rate: int) -> float:
    """How far below the sound meant the difference lies, but for 50 ms at each end."""
    edge = rate // 20
    error, meant = (heard - meant)[edge:-edge], meant[edge:-edge]
    return 10 * np.log10(np.mean(error**2) / np.mean(meant**2))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAVEX", "PCM_32"), ("FLAC", "PCM_24")],
)
async def test_a_clip_is_kept_as_it_is_and_heard_at_the_rate_asked_for(client, kind, subtype, channels):
    content = file_of(tone(44_100, 2.00001, channels), 44_100, kind, subtype)
    samples, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    clip = await client.import_clip(content)
    assert (clip.frames, clip.sample_rate_hz, clip.channels) == (88_200, 44_100, channels)
    assert clip.duration_seconds == 2.0
    assert clip.pcm_sha256 == hashlib.sha256(samples.tobytes()).hexdigest()
    (name,) = client.files()
    assert re.fullmatch(rf"clips/\d{{4}}/\d\d/\d\d/{clip.clip_id}\.wav", name)
    info = soundfile.info(client.data_dir / name)
    assert (info.format, info.subtype) == ("WAV", "FLOAT")

    heard = await client.listen(clip.clip_id, level=audio_pb2.AUDIO_LEVEL_FINAL)
    assert (heard.header.generation_id, heard.header.attempt) == (clip.clip_id, 0)
    assert heard.header.expected_frames == 88_200
    np.testing.assert_array_equal(await heard.rest(), samples)

    for heard_channels in (1, 2):
        heard = await client.listen(clip.clip_id, sample_rate_hz=RATE, channels=heard_channels)
        assert (heard.header.sample_rate_hz, heard.header.channels) == (RATE, heard_channels)
        assert heard.header.expected_frames == 64_000
        resampled = await heard.rest()
        assert len(resampled) == 64_000
        meant = tone(RATE, 2, channels)
        if heard_channels < channels:
            meant = meant.mean(axis=1, keepdims=True)
        assert error_db(resampled, meant, RATE) <= -80
        if channels == 1:
            np.testing.assert_array_equal(resampled[:, 0], resampled[:, -1])


async def test_frames_count_at_the_rate_asked_for(client):
    samples = music(3)
    clip = await client.import_clip(file_of(samples, 44_100, subtype="FLOAT"))
    whole = await client.hear(clip.clip_id, sample_rate_hz=RATE)
    frames = len(samples) * 320 / 441
    assert len(whole) == round(frames) == 69_660
    for start in (1, 12_345, 69_659, 69_660):
        part = await client.hear(clip.clip_id, start, sample_rate_hz=RATE)
        np.testing.assert_array_equal(part, whole[start:])
    async with refused("OUT_OF_RANGE", "PAST_THE_END"):
        await client.hear(clip.clip_id, 69_661, sample_rate_hz=RATE)
    # A rate that is the file's own changes nothing.
    np.testing.assert_array_equal(await client.hear(clip.clip_id, 100, sample_rate_hz=44_100), samples[100:])


@pytest.mark.parametrize("rate", [0, 44_100, RATE])
async def test_the_last_seconds(client, rate):
    clip = await client.import_clip(file_of(music(3), 44_100))
    whole = await client.hear(clip.clip_id, sample_rate_hz=rate, channels=1)
    for seconds, frames in ((0.5, (rate or 44_100) // 2), (1 / (rate or 44_100), 1), (1000.0, len(whole))):
        heard = await client.listen(clip.clip_id, sample_rate_hz=rate, channels=1, last_seconds=seconds)
        assert heard.header.expected_frames == frames
        np.testing.assert_array_equal(await heard.rest(), whole[-frames:])


async def test_a_finished_generation_is_converted_too_but_not_a_live_one(client):
    generation_id, samples = new_id(), music(2)
    upload, good = client.upload(), parts(generation_id, samples)
    await upload.send(*good[:2])
    live = await client.listen(generation_id, wait_seconds=5, sample_rate_hz=RATE, channels=2)
    for field, value in (("sample_rate_hz", 48_000), ("channels", 1), ("last_seconds", 0.5)):
        async with refused("INVALID_ARGUMENT", field=field, says="level FINAL"):
            await client.hear(generation_id, **{field: value})
    await upload.send(*good[2:])
    response = await upload.finish()
    np.testing.assert_array_equal(await live.rest(), samples)
    async with refused("INVALID_ARGUMENT", field="channels", says="level FINAL"):
        await client.hear(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE, channels=1)
    read, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32")
    heard = await client.hear(generation_id, channels=1, last_seconds=0.25)
    np.testing.assert_array_equal(heard, read[-8_000:].mean(axis=1, keepdims=True))
    heard = await client.listen(generation_id, sample_rate_hz=48_000)
    assert heard.header.attempt == 1
    assert len(await heard.rest()) == 96_000


async def test_a_clip_is_downloaded_drawn_and_deleted_like_a_file(client):
    clip = await client.import_clip(file_of(music(1)))
    (name,) = client.files()
    messages = await fetched(client, clip.clip_id)
    assert b"".join(message.data for message in messages) == (client.data_dir / name).read_bytes()
    request = export_pb2.GetWaveformRequest(generation_id=clip.clip_id, points=10)
    assert (await client.stub.GetWaveform(request, timeout=TIMEOUT)).length == 10
    delete = export_pb2.DeleteFileRequest(generation_id=clip.clip_id)
    await client.stub.DeleteFile(delete, timeout=TIMEOUT)
    assert client.files() == set()
    async with refused("NOT_FOUND", "FILE_NOT_FOUND"):
        await client.stub.DeleteFile(delete, timeout=TIMEOUT)
    async with refused("NOT_FOUND", "AUDIO_NOT_FOUND"):
        await client.hear(clip.clip_id)


async def test_a_clip_is_no_generation(client):
    """An export that is given a clip's id makes a file of its own."""
    clip = await client.import_clip(file_of(music(1)))
    response = await client.export(clip.clip_id, music(1))
    assert response.file_path.startswith("outputs/")
    assert len([name for name in client.files() if name.startswith("clips/")]) == 1


async def begun_import(client) -> grpc.aio.StreamUnaryCall:
    """An import that the server has begun to write: so much passes to it only as it reads."""
    call = client.stub.ImportClip(timeout=TIMEOUT)
    content = file_of(music(20), subtype="FLOAT")[: 64 * 65_536]
    for start in range(0, len(content), 65_536):
        await call.write(export_pb2.ImportClipRequest(data=content[start : start + 65_536]))
    assert [name for name in client.files() if name.endswith(".upload.part")]
    return call


async def test_an_import_that_breaks_off_leaves_nothing(tmp_path):
    async with serving(tmp_path) as client:
        (await begun_import(client)).cancel()
    assert client.files() == set()


async def test_an_import_that_is_killed_is_swept_at_the_next_start_and_clips_stay(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/export.sock"
        environment = os.environ | {"DGX_MUSIC_DATA_DIR": str(tmp_path), "DGX_MUSIC_EXPORT_ADDRESS": address}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "export_service.server", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with connect(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), TIMEOUT)
                client = Client(tmp_path, export_pb2_grpc.ExportServiceStub(channel))
                clip = await client.import_clip(file_of(music(1)))
                kept = client.files()
                call = await begun_import(client)
                process.kill()
                with pytest.raises(grpc.aio.AioRpcError):
                    await call
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    # What a crash in the middle of writing the clip would leave.
    (tmp_path / "clips/.landing" / f"{new_id()}.0.part").write_bytes(b"half a clip")
    async with serving(tmp_path) as client:
        assert client.files() == kept
        assert len(await client.hear(clip.clip_id)) == RATE


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must be a whole WAV (PCM or float) or FLAC file; it is empty"),
        (b"# Notes\n" * 20_000, "must be a whole WAV (PCM or float) or FLAC file; it is neither"),
        (file_of(tone(44_100, 1, 2))[:-10_000], "the last 10000 of its 264600 bytes of samples are missing"),
        (file_of(tone(44_100, 1, 2), kind="FLAC")[:-10_000], "truncated or damaged"),
        (file_of(tone(44_100, 0.05, 2)), "must be 0.1 to 600 s of audio, not 0.050 s"),
        (file_of(np.full((44_100, 1), np.nan), subtype="FLOAT"), "frame 0, channel 0 is nan"),
    ],
    ids=["empty", "foreign", "truncated-wav", "truncated-flac", "short", "nan"],
)
async def test_files_that_are_no_clip(client, content, says):
    async with refused("INVALID_ARGUMENT", field="data", says=says):
        await client.import_clip(content)
    assert client.files() == set()


@pytest.mark.parametrize("size", [0, 65_537])
async def test_messages_that_are_no_part_of_a_file(client, size):
    call = client.stub.ImportClip(timeout=TIMEOUT)
    await call.write(export_pb2.ImportClipRequest(data=bytes(size)))
    async with refused("INVALID_ARGUMENT", field="data", says=f"1 to 65536 bytes a message, not {size}"):
        await call
    assert client.files() == set()


async def test_a_clip_has_limits(tmp_path):
    fits = file_of(tone(44_100, 1, 1))
    async with serving(tmp_path, max_clip_bytes=len(fits), max_clip_seconds=1.0) as client:
        await client.import_clip(fits)
        kept = client.files()
        async with refused("INVALID_ARGUMENT", field="data", says=f"at most {len(fits)} bytes"):
            await client.import_clip(fits + b"\0", close=False)
        async with refused("INVALID_ARGUMENT", field="data", says="0.1 to 1 s of audio, not 1.250 s"):
            await client.import_clip(file_of(tone(8_000, 1.25, 1), 8_000))
        assert client.files() == kept


# The disk.


async def test_no_room_on_the_disk(client):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    generation_id, samples = new_id(), music(10)
    good = parts(generation_id, samples, output=audio_pb2.OutputOptions(format=audio_pb2.FILE_FORMAT_WAV_FLOAT))
    # Room for less than the spool; then for the spool, but not for the file, which has a header besides.
    for limit, sent, close in [(100_000, good[:3], False), (samples.nbytes, good, True)]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            async with refused("RESOURCE_EXHAUSTED", "DISK_FULL"):
                await client.send(sent, close)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert client.files() == set()
    await client.send(good)


async def test_killed_in_the_middle_and_swept_at_the_next_start(tmp_path):
    generation_id, samples = new_id(), music(3)
    finished = new_id()
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/export.sock"
        environment = os.environ | {"DGX_MUSIC_DATA_DIR": str(tmp_path), "DGX_MUSIC_EXPORT_ADDRESS": address}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "export_service.server", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with connect(address) as channel:
                await asyncio.wait_for(channel.channel_ready(), TIMEOUT)
                client = Client(tmp_path, export_pb2_grpc.ExportServiceStub(channel))
                landed = await client.export(finished, music(1))
                upload, good = client.upload(), parts(generation_id, samples)
                await upload.send(*good[:3])
                await (await client.listen(generation_id, wait_seconds=5)).until(8_192)
                assert f"spool/{generation_id}.1.pcm.part" in client.files()
                process.kill()
                with pytest.raises(grpc.aio.AioRpcError):
                    await upload.call
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    # What a crash in the middle of writing the file would leave.
    (tmp_path / "outputs/.landing" / f"{generation_id}.1.part").write_bytes(b"half a file")
    async with serving(tmp_path) as client:
        assert client.files() == {landed.file_path, f"spool/{finished}.1.pcm"}
        response = await client.export(generation_id, samples, attempt=2)
        assert response.frames == len(samples)


async def test_sigterm_ends_the_process_in_order(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/export.sock"
        environment = os.environ | {"DGX_MUSIC_DATA_DIR": str(tmp_path), "DGX_MUSIC_EXPORT_ADDRESS": address}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "export_service.server", env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        async with connect(address) as channel:
            await asyncio.wait_for(channel.channel_ready(), TIMEOUT)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), TIMEOUT) == 0


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB, and a function that makes it read-only."""

    def mount(options: str) -> int:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)]
        return subprocess.run(command, capture_output=True).returncode

    def make_read_only() -> None:
        assert mount("remount,ro,size=2m") == 0

    if os.geteuid() != 0 or mount("size=2m") != 0:
        pytest.skip("mounting a disk takes root")
    yield tmp_path, make_read_only
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_a_disk_that_is_full_and_one_that_is_read_only(small_disk):
    data_dir, make_read_only = small_disk
    async with serving(data_dir) as client:
        kept, big = await client.export(new_id(), music(1)), parts(new_id(), music(20))
        # The first leaves room for 25 chunks and a bit: the 26th is refused.
        async with refused("RESOURCE_EXHAUSTED", "DISK_FULL"):
            await client.send(big[:27], close=False)
        assert len(client.files()) == 2
        make_read_only()
        async with refused("UNAVAILABLE", "LIBRARY_UNAVAILABLE"):
            await client.send(parts(new_id(), music(1))[:1], close=False)
        assert (client.data_dir / kept.file_path).exists()


async def test_health_tells_when_the_library_is_gone(tmp_path):
    service = build(ExportSettings(data_dir=tmp_path))
    await service.start()
    await service.check()
    (tmp_path / "outputs").rename(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="library's disk failed"):
        await service.check()
    await service.drain()
    await service.stop()
