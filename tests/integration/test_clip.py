"""Clips over real gRPC: taken in, heard, and refused where they are none."""

from __future__ import annotations

import hashlib
import io
import re

import grpc
import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import RATE, TIMEOUT, music, new_id, parts, refused, serving
from tests.support.export_servers import export_server


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
    messages = await client.fetched(clip.clip_id)
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
    async with export_server(tmp_path) as (process, client):
        clip = await client.import_clip(file_of(music(1)))
        kept = client.files()
        call = await begun_import(client)
        process.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    # What a crash in the middle of writing the clip would leave.
    (tmp_path / "clips/.landing" / f"{new_id()}.0.part").write_bytes(b"half a clip")
    async with serving(tmp_path) as client:
        assert client.files() == kept
        assert len(await client.hear(clip.clip_id)) == RATE


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must be a complete WAV (PCM or float) or FLAC file; it is empty"),
        (b"# Notes\n" * 20_000, "must be a complete WAV (PCM or float) or FLAC file; it is neither"),
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
