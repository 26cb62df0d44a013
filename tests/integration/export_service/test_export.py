"""Exported files: normalization, tags and samples."""

from __future__ import annotations

import gc
import hashlib
import itertools
import threading

import numpy as np
import pyebur128
import pytest
import soundfile

from dgx_music.audio.v1 import audio_pb2
from dgx_music.export.v1 import export_pb2
from dgx_music.pcm import PcmWriter
from export_service.dsp.measurement import SignalMeter
from tests.support.export_client import RATE_HZ, Request, build_header, music, new_id


@pytest.mark.parametrize("channels", [1, 2])
async def test_export_writes_normalized_tagged_file(client, channels):
    generation_id, samples = new_id(), music(5, channels)
    response = await client.export(generation_id, samples)
    path = client.data_dir / response.file_path
    assert path.name == f"{generation_id}.wav"
    assert path.parent.parent.parent.parent == client.data_dir / "outputs"
    assert response.file_size_bytes == path.stat().st_size
    assert response.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert response.pcm_sha256 == hashlib.sha256(samples.tobytes()).hexdigest()
    assert (response.frames, response.duration_seconds) == (5 * RATE_HZ, 5.0)
    assert (response.sample_rate_hz, response.channels) == (RATE_HZ, channels)
    assert response.format == audio_pb2.FILE_FORMAT_WAV_PCM_24

    read, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert (rate, read.shape) == (RATE_HZ, samples.shape)
    mode = pyebur128.MeasurementMode
    meter = pyebur128.R128State(channels, RATE_HZ, mode.MODE_I | mode.MODE_TRUE_PEAK)
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


async def test_limiter_meets_target_and_ceiling(client):
    samples = music(5, level=0.6)
    samples[1000:1003] = 0.9
    response = await client.export(new_id(), samples)
    normalization = response.normalization
    assert normalization.mode == export_pb2.NORMALIZATION_MODE_LIMITED
    assert (normalization.shortfall_lu, normalization.reason) == (0, "")
    assert 0 < normalization.limited_share < 0.1
    assert 0 < normalization.largest_reduction_db <= 6
    assert response.file.true_peak_dbtp <= -1.1
    read, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32", always_2d=True)
    mode = pyebur128.MeasurementMode
    meter = pyebur128.R128State(2, RATE_HZ, mode.MODE_I | mode.MODE_TRUE_PEAK)
    meter.add_frames(read.ravel(), len(read))
    assert pyebur128.get_loudness_global(meter) == pytest.approx(-16, abs=0.1)
    assert response.file.integrated_lufs == pytest.approx(pyebur128.get_loudness_global(meter), abs=0.01)
    assert pyebur128.get_true_peak(meter, 0) <= 10 ** (-1 / 20)


async def test_limiter_stops_at_6_db_and_reports_shortfall(client):
    samples = music(5, level=0.2)
    samples[1000:1003] = 0.9
    response = await client.export(new_id(), samples)
    normalization = response.normalization
    assert normalization.mode == export_pb2.NORMALIZATION_MODE_LIMITED
    assert normalization.largest_reduction_db == pytest.approx(6, abs=0.01)
    assert response.file.true_peak_dbtp <= -1
    assert response.file.integrated_lufs == pytest.approx(-16 - normalization.shortfall_lu, abs=0.001)
    assert "held back" in normalization.reason


async def test_audio_too_short_for_loudness_keeps_its_level(client):
    samples = music(0.3)
    response = await client.export(new_id(), samples)
    assert response.normalization.mode == export_pb2.NORMALIZATION_MODE_NONE
    assert "too short" in response.normalization.reason
    assert not response.source.HasField("integrated_lufs")
    read, _ = soundfile.read(client.data_dir / response.file_path, dtype="float32")
    np.testing.assert_allclose(read, samples, atol=2**-23)


async def test_digital_silence(client):
    response = await client.export(new_id(), np.zeros((RATE_HZ, 2), dtype=np.float32))
    assert response.normalization.mode == export_pb2.NORMALIZATION_MODE_NONE
    assert "too quiet" in response.normalization.reason
    assert not response.file.HasField("true_peak_dbtp")
    assert response.frames == RATE_HZ


async def test_single_frame(client):
    response = await client.export(new_id(), np.full((1, 1), 0.5, dtype=np.float32))
    assert soundfile.info(client.data_dir / response.file_path).frames == 1


@pytest.mark.parametrize("mode", [export_pb2.NORMALIZATION_MODE_LINEAR, export_pb2.NORMALIZATION_MODE_LIMITED])
async def test_file_does_not_depend_on_chunk_sizes(client, mode):
    samples, generation_id = music(3, level=0.6), new_id()
    if mode == export_pb2.NORMALIZATION_MODE_LIMITED:
        samples[1000:1003] = 0.9
    first = await client.export(generation_id, samples)
    assert first.normalization.mode == mode
    writer, view, chunks = PcmWriter(2), samples.tobytes(), []
    for start, end in itertools.pairwise(range(0, len(view) + 1, 8 * 96)):
        chunks += [Request(chunk=chunk) for chunk in writer.chunks(view[start:end])]
    chunks = [build_header(generation_id, samples), *chunks, Request(end=writer.end())]
    second = await client.send(chunks)
    assert second.file_sha256 == first.file_sha256


async def test_extremely_loud_samples_are_normalized(client):
    response = await client.export(new_id(), music(1, level=1e30))
    assert response.file.integrated_lufs == pytest.approx(-16, abs=0.01)


@pytest.mark.parametrize("level", [0.1, 0.6])
async def test_finished_export_leaves_no_meters_to_the_garbage_collector(client, level):
    samples = music(2, level=level)
    samples[1000] = 0.9
    gc.collect()
    gc.disable()
    try:
        await client.export(new_id(), samples)
        for thread in threading.enumerate():
            if thread.name.startswith("export_"):
                thread.join()
        assert not [each for each in gc.get_objects() if isinstance(each, SignalMeter)]
    finally:
        gc.enable()
