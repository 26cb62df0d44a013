"""Import, conversion and deletion of clips."""

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
from export_service.decoding.source_file import SOURCE_FILE_REQUIREMENT
from export_service.dsp.measurement import SignalMeter
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    build_requests,
    music,
    new_id,
    raises_rpc_error,
    run_export_service,
)
from tests.support.export_servers import run_export_process
from tests.support.failpoints import armed
from tests.support.foreign_files import CHANNEL_COUNTS, PIPED, encode_tones


def tone(rate: int, seconds: float, channels: int) -> np.ndarray:
    """Returns [frames, channels]: a 997 Hz sine, at half the amplitude on the second channel."""
    wave = 0.5 * np.sin(2 * np.pi * 997 * np.arange(round(seconds * rate)) / rate)
    return np.stack([wave, wave / 2][:channels], axis=1).astype(np.float32)


def encode(samples: np.ndarray, rate: int = 44_100, kind: str = "WAV", subtype: str = "PCM_24") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def error_db(actual: np.ndarray, expected: np.ndarray, rate: int) -> float:
    """Returns the error relative to the expected signal in dB, without 50 ms at each end."""
    edge = rate // 20
    error, expected = (actual - expected)[edge:-edge], expected[edge:-edge]
    return 10 * np.log10(np.mean(error**2) / np.mean(expected**2))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAVEX", "PCM_32"), ("FLAC", "PCM_24")],
)
async def test_clip_is_stored_losslessly_and_streamed_at_requested_rate(client, kind, subtype, channels):
    content = encode(tone(44_100, 2.00001, channels), 44_100, kind, subtype)
    samples, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    clip = await client.import_clip(content)
    assert (clip.frames, clip.sample_rate_hz, clip.channels) == (88_200, 44_100, channels)
    assert clip.duration_seconds == 2.0
    assert clip.pcm_sha256 == hashlib.sha256(samples.tobytes()).hexdigest()
    (name,) = client.files()
    assert re.fullmatch(rf"clips/\d{{4}}/\d\d/\d\d/{clip.clip_id}\.wav", name)
    info = soundfile.info(client.data_dir / name)
    assert (info.format, info.subtype) == ("WAV", "FLOAT")

    listener = await client.listen(clip.clip_id, level=audio_pb2.AUDIO_LEVEL_FINAL)
    assert (listener.header.generation_id, listener.header.attempt) == (clip.clip_id, 0)
    assert listener.header.expected_frames == 88_200
    np.testing.assert_array_equal(await listener.read_rest(), samples)

    for out_channels in (1, 2):
        listener = await client.listen(clip.clip_id, sample_rate_hz=RATE_HZ, channels=out_channels)
        assert (listener.header.sample_rate_hz, listener.header.channels) == (RATE_HZ, out_channels)
        assert listener.header.expected_frames == 64_000
        resampled = await listener.read_rest()
        assert len(resampled) == 64_000
        expected = tone(RATE_HZ, 2, channels)
        if out_channels < channels:
            expected = expected.mean(axis=1, keepdims=True)
        assert error_db(resampled, expected, RATE_HZ) <= -80
        if channels == 1:
            np.testing.assert_array_equal(resampled[:, 0], resampled[:, -1])


async def test_start_frame_counts_at_requested_rate(client):
    samples = music(3)
    clip = await client.import_clip(encode(samples, 44_100, subtype="FLOAT"))
    whole = await client.read_audio(clip.clip_id, sample_rate_hz=RATE_HZ)
    frames = len(samples) * 320 / 441
    assert len(whole) == round(frames) == 69_660
    for start in (1, 12_345, 69_659, 69_660):
        part = await client.read_audio(clip.clip_id, start, sample_rate_hz=RATE_HZ)
        np.testing.assert_array_equal(part, whole[start:])
    async with raises_rpc_error("OUT_OF_RANGE", "PAST_THE_END"):
        await client.read_audio(clip.clip_id, 69_661, sample_rate_hz=RATE_HZ)
    # The file's own rate changes nothing.
    np.testing.assert_array_equal(await client.read_audio(clip.clip_id, 100, sample_rate_hz=44_100), samples[100:])


@pytest.mark.parametrize("rate", [0, 44_100, RATE_HZ])
async def test_last_seconds_of_clip(client, rate):
    clip = await client.import_clip(encode(music(3), 44_100))
    whole = await client.read_audio(clip.clip_id, sample_rate_hz=rate, channels=1)
    for seconds, frames in ((0.5, (rate or 44_100) // 2), (1 / (rate or 44_100), 1), (1000.0, len(whole))):
        listener = await client.listen(clip.clip_id, sample_rate_hz=rate, channels=1, last_seconds=seconds)
        assert listener.header.expected_frames == frames
        np.testing.assert_array_equal(await listener.read_rest(), whole[-frames:])


async def test_finished_audio_is_converted_but_live_audio_is_not(client):
    generation_id, samples = new_id(), music(2)
    upload, requests = client.upload(), build_requests(generation_id, samples)
    await upload.send(*requests[:2])
    live = await client.listen(generation_id, wait_seconds=5, sample_rate_hz=RATE_HZ, channels=2)
    for field, value in (("sample_rate_hz", 48_000), ("channels", 1), ("last_seconds", 0.5)):
        async with raises_rpc_error("INVALID_ARGUMENT", field=field, match="level FINAL"):
            await client.read_audio(generation_id, **{field: value})
    await upload.send(*requests[2:])
    response = await upload.finish()
    np.testing.assert_array_equal(await live.read_rest(), samples)
    async with raises_rpc_error("INVALID_ARGUMENT", field="channels", match="level FINAL"):
        await client.read_audio(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE, channels=1)
    read, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32")
    audio = await client.read_audio(generation_id, channels=1, last_seconds=0.25)
    np.testing.assert_array_equal(audio, read[-8_000:].mean(axis=1, keepdims=True))
    listener = await client.listen(generation_id, sample_rate_hz=48_000)
    assert listener.header.attempt == 1
    assert len(await listener.read_rest()) == 96_000


async def test_clip_can_be_downloaded_drawn_and_deleted(client):
    clip = await client.import_clip(encode(music(1)))
    (name,) = client.files()
    messages = await client.download(clip.clip_id)
    assert b"".join(message.data for message in messages) == (client.data_dir / name).read_bytes()
    request = export_pb2.GetWaveformRequest(generation_id=clip.clip_id, points=10)
    assert (await client.stub.GetWaveform(request, timeout=TIMEOUT_SECONDS)).length == 10
    curve = export_pb2.GetLoudnessCurveRequest(generation_id=clip.clip_id)
    measured = await client.stub.GetLoudnessCurve(curve, timeout=TIMEOUT_SECONDS)
    assert len(measured.true_peak_dbtp) == 8  # 32000 frames at 44.1 kHz.
    assert max(measured.true_peak_dbtp) == pytest.approx(clip.loudness.true_peak_dbtp, abs=1e-4)
    assert max(measured.momentary_lufs) == pytest.approx(clip.loudness.max_momentary_lufs, abs=1e-4)
    delete = export_pb2.DeleteFileRequest(generation_id=clip.clip_id)
    await client.stub.DeleteFile(delete, timeout=TIMEOUT_SECONDS)
    assert client.files() == set()
    async with raises_rpc_error("NOT_FOUND", "FILE_NOT_FOUND"):
        await client.stub.DeleteFile(delete, timeout=TIMEOUT_SECONDS)
    async with raises_rpc_error("NOT_FOUND", "AUDIO_NOT_FOUND"):
        await client.read_audio(clip.clip_id)


async def test_export_with_id_of_clip_creates_output(client):
    """The two have separate folders, so the clip is not replaced."""
    clip = await client.import_clip(encode(music(1)))
    response = await client.export(clip.clip_id, music(1))
    assert response.file_path.startswith("outputs/")
    assert len([name for name in client.files() if name.startswith("clips/")]) == 1


@pytest.mark.parametrize(
    ("options", "output", "source_format", "layout"),
    [
        ([], "a.mp3", "MP3", "stereo"),
        ([], "a.m4a", "AAC (MPEG-4)", "mono"),
        (["-f", "wav"], PIPED, "WAV, 16-bit PCM", "stereo"),
        (["-c:a", "libvorbis"], "a.ogg", "Ogg Vorbis", "5.1"),
    ],
)
async def test_clip_of_any_format_is_measured(client, options, output, source_format, layout):
    clip = await client.import_clip(encode_tones(*options, output=output, layout=layout, seconds=1.0))
    samples = await client.read_audio(clip.clip_id)
    channels = CHANNEL_COUNTS[layout]
    assert (clip.source_format, clip.source_channels, clip.channels) == (source_format, channels, min(channels, 2))
    assert samples.shape == (clip.frames, clip.channels)
    assert hashlib.sha256(samples.tobytes()).hexdigest() == clip.pcm_sha256
    meter = SignalMeter(44_100, clip.channels)
    meter.feed(samples)
    measured = meter.finish()
    assert clip.loudness.integrated_lufs == pytest.approx(measured.loudness.integrated_lufs, abs=1e-6)
    assert clip.loudness.true_peak_dbtp == pytest.approx(measured.true_peak_dbtp, abs=1e-6)
    assert not clip.HasField("tempo"), "it is shorter than 5 s"
    assert not clip.not_measured


async def test_tempo_and_key_of_clip_are_measured(client):
    clip = await client.import_clip(encode(music(10), RATE_HZ, "FLAC"))
    assert (
        pytest.approx(clip.tempo.bpm, rel=0.02) == 120.0 or pytest.approx(clip.tempo.alternative_bpm, rel=0.02) == 120.0
    )
    assert clip.key.name.startswith("A")
    assert clip.source_format == "FLAC, 24-bit"


@pytest.mark.parametrize(
    ("point", "names"), [("export.loudness_measurement", ["loudness"]), ("export.feature_extraction", ["tempo", "key"])]
)
async def test_clip_is_kept_if_it_cannot_be_measured(client, point, names):
    with armed(f"{point}:raise"):
        clip = await client.import_clip(encode(music(6), RATE_HZ))
    assert [failure.name for failure in clip.not_measured] == names
    assert all("RuntimeError" in failure.reason for failure in clip.not_measured)
    assert clip.HasField("loudness") is (names != ["loudness"])
    assert clip.HasField("key") is (names == ["loudness"])
    assert len(await client.read_audio(clip.clip_id)) == clip.frames == 6 * RATE_HZ


async def begin_import(client) -> grpc.aio.StreamUnaryCall:
    """Returns an import that the server has begun to write: gRPC buffers less than this without it reading."""
    call = client.stub.ImportClip(timeout=TIMEOUT_SECONDS)
    content = encode(music(20), subtype="FLOAT")[: 64 * 65_536]
    for start in range(0, len(content), 65_536):
        await call.write(export_pb2.ImportClipRequest(data=content[start : start + 65_536]))
    assert [name for name in client.files() if name.endswith(".upload.part")]
    return call


async def test_cancelled_import_leaves_no_files(tmp_path):
    async with run_export_service(tmp_path) as client:
        (await begin_import(client)).cancel()
    assert client.files() == set()


async def test_restart_after_kill_removes_incomplete_import_and_keeps_clips(tmp_path):
    async with run_export_process(tmp_path) as (process, client):
        clip = await client.import_clip(encode(music(1)))
        kept = client.files()
        call = await begin_import(client)
        process.kill()
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    # As after a crash while the clip was being written.
    (tmp_path / "clips/.landing" / f"{new_id()}.0.part").write_bytes(b"half a clip")
    async with run_export_service(tmp_path) as client:
        assert client.files() == kept
        assert len(await client.read_audio(clip.clip_id)) == RATE_HZ


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", f"{SOURCE_FILE_REQUIREMENT}; it is empty"),
        (b"# Notes\n" * 20_000, f"{SOURCE_FILE_REQUIREMENT}; it is text"),
        (encode(tone(44_100, 1, 2))[:-10_000], "the last 10000 of its 264600 bytes of samples are missing"),
        (encode(tone(44_100, 1, 2), kind="FLAC")[:-10_000], "truncated or damaged"),
        (encode(tone(44_100, 0.05, 2)), "must be 0.1 to 600 s of audio, not 0.050 s"),
        (encode(np.full((44_100, 1), np.nan), subtype="FLOAT"), "frame 0, channel 0 is nan"),
    ],
    ids=["empty", "foreign", "truncated-wav", "truncated-flac", "short", "nan"],
)
async def test_invalid_clip_file_is_rejected(client, content, says):
    async with raises_rpc_error("INVALID_ARGUMENT", field="data", match=says):
        await client.import_clip(content)
    assert client.files() == set()


@pytest.mark.parametrize("size", [0, 65_537])
async def test_import_message_of_invalid_size_is_rejected(client, size):
    call = client.stub.ImportClip(timeout=TIMEOUT_SECONDS)
    await call.write(export_pb2.ImportClipRequest(data=bytes(size)))
    async with raises_rpc_error(
        "INVALID_ARGUMENT", field="data", match=f"1 to 65536 bytes in each message, not {size}"
    ):
        await call
    assert client.files() == set()


async def test_clip_over_limits_is_rejected(tmp_path):
    fits = encode(tone(44_100, 1, 1))
    async with run_export_service(tmp_path, max_clip_bytes=len(fits), max_clip_seconds=1.0) as client:
        await client.import_clip(fits)
        kept = client.files()
        async with raises_rpc_error("INVALID_ARGUMENT", field="data", match=f"at most {len(fits)} bytes"):
            await client.import_clip(fits + b"\0", close=False)
        async with raises_rpc_error("INVALID_ARGUMENT", field="data", match="0.1 to 1 s of audio, not 1.250 s"):
            await client.import_clip(encode(tone(8_000, 1.25, 1), 8_000))
        assert client.files() == kept
