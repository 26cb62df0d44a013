"""Download, waveform and deletion of exported files."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import RATE_HZ, TIMEOUT_SECONDS, music, new_id, output_options, raises_rpc_error


async def test_download_of_whole_file_and_ranges(client):
    generation_id = new_id()
    response = await client.export(generation_id, music(2))
    content = (client.data_dir / response.file_path).read_bytes()
    messages = await client.download(generation_id)
    assert b"".join(message.data for message in messages) == content
    assert max(len(message.data) for message in messages) == 65_536
    assert (messages[0].file_name, messages[0].file_size_bytes) == (f"{generation_id}.wav", len(content))
    assert all(not message.file_name and not message.file_size_bytes for message in messages[1:])
    for start, count in [(0, 1), (65_535, 2), (1_000, 200_000), (len(content) - 5, 0), (len(content) - 5, 50)]:
        part = await client.download(generation_id, start, count)
        assert b"".join(message.data for message in part) == content[start:][: count or None]
    (empty,) = await client.download(generation_id, len(content))
    assert (empty.data, empty.file_size_bytes) == (b"", len(content))
    async with raises_rpc_error("OUT_OF_RANGE", "PAST_THE_END"):
        await client.download(generation_id, len(content) + 1)
    async with raises_rpc_error("INVALID_ARGUMENT", field="start_byte"):
        await client.download(generation_id, -1)
    async with raises_rpc_error("INVALID_ARGUMENT", field="byte_count"):
        await client.download(generation_id, 0, -1)


async def test_get_waveform(client):
    generation_id = new_id()
    await client.export(generation_id, music(2))
    request = export_pb2.GetWaveformRequest(generation_id=generation_id)
    response = await client.stub.GetWaveform(request, timeout=TIMEOUT_SECONDS)
    assert (response.version, response.channels, response.bits, response.sample_rate) == (2, 1, 8, RATE_HZ)
    assert (response.length, response.samples_per_pixel) == (800, 80)
    assert len(response.data) == 1600
    assert min(response.data) < -10
    assert max(response.data) > 10
    request.points = 10_001
    async with raises_rpc_error("INVALID_ARGUMENT", field="points"):
        await client.stub.GetWaveform(request, timeout=TIMEOUT_SECONDS)


@pytest.mark.parametrize(
    ("options", "tolerance_db"),
    [
        ({"format": "WAV_PCM_24"}, 1e-4),
        ({"format": "WAV_PCM_16"}, 0.02),
        pytest.param({"format": "OGG_OPUS"}, 1e-4, marks=pytest.mark.slow),
    ],
    ids=lambda value: value["format"] if isinstance(value, dict) else "",
)
async def test_loudness_curve_has_the_figures_of_the_file(client, options, tolerance_db):
    generation_id = new_id()
    exported = await client.export(generation_id, music(4.05), output=output_options(options["format"]))
    request = export_pb2.GetLoudnessCurveRequest(generation_id=generation_id)
    curve = await client.stub.GetLoudnessCurve(request, timeout=TIMEOUT_SECONDS)
    assert curve.seconds_per_point == 0.1
    assert len(curve.true_peak_dbtp) == len(curve.short_term_lufs) == len(curve.momentary_lufs) == 41
    for values, figure in (
        (curve.true_peak_dbtp, exported.file.true_peak_dbtp),
        (curve.short_term_lufs, exported.file.max_short_term_lufs),
        (curve.momentary_lufs, exported.file.max_momentary_lufs),
    ):
        assert max(values) == pytest.approx(figure, abs=tolerance_db)
    request.points = 7
    coarse = await client.stub.GetLoudnessCurve(request, timeout=TIMEOUT_SECONDS)
    assert (len(coarse.true_peak_dbtp), coarse.seconds_per_point) == (7, pytest.approx(0.6))
    assert max(coarse.true_peak_dbtp) == max(curve.true_peak_dbtp)
    request.points = 10_001
    async with raises_rpc_error("INVALID_ARGUMENT", field="points"):
        await client.stub.GetLoudnessCurve(request, timeout=TIMEOUT_SECONDS)
    request = export_pb2.GetLoudnessCurveRequest(generation_id=new_id())
    async with raises_rpc_error("NOT_FOUND", "FILE_NOT_FOUND"):
        await client.stub.GetLoudnessCurve(request, timeout=TIMEOUT_SECONDS)


async def test_silence_has_the_lowest_values(client):
    generation_id = new_id()
    await client.export(generation_id, np.zeros((RATE_HZ, 2), dtype=np.float32))
    request = export_pb2.GetLoudnessCurveRequest(generation_id=generation_id)
    curve = await client.stub.GetLoudnessCurve(request, timeout=TIMEOUT_SECONDS)
    assert set(curve.short_term_lufs) == set(curve.momentary_lufs) == {-70.0}
    assert set(curve.true_peak_dbtp) == {-120.0}


async def test_delete_removes_all_files_but_listeners_read_to_the_end(client):
    generation_id, samples = new_id(), music(60)
    await client.export(generation_id, samples)
    live = await client.listen(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE)
    final = await client.listen(generation_id)
    await asyncio.gather(live.read_until(1), final.read_until(1))
    request = export_pb2.DeleteFileRequest(generation_id=generation_id)
    await client.stub.DeleteFile(request, timeout=TIMEOUT_SECONDS)
    assert client.files() == set()
    np.testing.assert_array_equal(await live.read_rest(), samples)
    assert len(await final.read_rest()) == len(samples)
    for call in (
        client.stub.DeleteFile(request, timeout=TIMEOUT_SECONDS),
        client.stub.GetWaveform(export_pb2.GetWaveformRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS),
    ):
        async with raises_rpc_error("NOT_FOUND", "FILE_NOT_FOUND"):
            await call
    async with raises_rpc_error("NOT_FOUND", "FILE_NOT_FOUND"):
        await client.download(generation_id)
    async with raises_rpc_error("NOT_FOUND"):
        await client.read_audio(generation_id)
    await client.export(generation_id, music(0.5))
