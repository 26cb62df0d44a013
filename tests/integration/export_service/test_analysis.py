"""Tempo, key and dynamics in the response of an export."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from dgx_music.export.v1 import export_pb2
from tests.support.export_client import RATE_HZ, TIMEOUT_SECONDS, ExportClient, build_requests, new_id, raises_rpc_error
from tests.support.failpoints import armed
from tests.support.sketch_clips import Clip

DRUM_AND_BASS = Clip("drum and bass at 174 BPM in F minor", "drum and bass", 174.0, "F minor", 3)


async def export(client: ExportClient, samples: np.ndarray, tempo_hint_bpm: float = 0.0) -> export_pb2.ExportResponse:
    """Exports without tags, so that tempo and key can only come from the analysis."""
    requests = build_requests(new_id(), samples, tags=None)
    requests[0].header.tempo_hint_bpm = tempo_hint_bpm
    return await client.send(requests)


async def test_export_reports_tempo_and_key(client):
    samples = DRUM_AND_BASS.samples(12.0)
    analysed = await export(client, samples)
    assert {round(analysed.tempo.bpm), round(analysed.tempo.alternative_bpm)} == {87, 174}
    assert analysed.key.name == "F minor"
    assert 0.1 < analysed.tempo.confidence <= 1
    assert 0.65 < analysed.key.confidence <= 1

    hinted = await export(client, samples, tempo_hint_bpm=170)
    assert hinted.tempo.bpm == pytest.approx(174, rel=0.005)
    assert hinted.key == analysed.key


@pytest.mark.parametrize(
    ("point", "names"),
    [
        ("feature_extraction", ["tempo", "key"]),
        ("tempo_estimation", ["tempo"]),
        ("key_estimation", ["key"]),
    ],
)
async def test_figure_that_fails_does_not_cost_the_file(client, point, names):
    samples = DRUM_AND_BASS.samples(6.0)
    with armed(f"export.{point}:raise"):
        response = await export(client, samples)
    assert [failure.name for failure in response.not_measured] == names
    assert all("RuntimeError" in failure.reason for failure in response.not_measured)
    for name in ("tempo", "key"):
        assert response.HasField(name) == (name not in names)
    undisturbed = await export(client, samples)
    assert (response.source, response.normalization) == (undisturbed.source, undisturbed.normalization)
    assert soundfile.info(client.data_dir / response.file_path).frames == len(samples)
    assert not undisturbed.not_measured


async def test_audio_just_over_a_section_of_the_autocorrelation_is_exported(client):
    """At 8 kHz, a section of the onset envelope has 393.216 s. A remainder shorter than the lags once failed."""
    seconds, rate = 395, 8000
    clicks = np.zeros((seconds * rate, 1), dtype=np.float32)
    clicks[:: rate * 60 // 120] = 0.5
    requests = build_requests(new_id(), clicks, tags=None, sample_rate_hz=rate)
    response = await client.send(requests)
    assert response.duration_seconds == seconds
    assert response.tempo.bpm == pytest.approx(120, rel=0.005)
    assert not response.not_measured


async def test_analysis_is_independent_of_output_rate(client):
    samples = DRUM_AND_BASS.samples(6.0)
    unconverted = await export(client, samples)
    requests = build_requests(new_id(), samples)
    requests[0].header.output.sample_rate_hz, requests[0].header.output.channels = 44_100, 1
    converted = await client.send(requests)
    assert (converted.tempo, converted.key) == (unconverted.tempo, unconverted.key)


async def test_short_or_toneless_audio_has_no_tempo_and_key(client):
    noise = 0.1 * np.random.default_rng(1).standard_normal((6 * RATE_HZ, 2))
    for samples in (DRUM_AND_BASS.samples(4.9), noise.astype(np.float32), np.zeros((6 * RATE_HZ, 1), dtype=np.float32)):
        response = await export(client, samples)
        assert not response.HasField("tempo")
        assert not response.HasField("key")


async def test_render_has_no_tempo_and_key(client):
    generation_id = new_id()
    await client.export(generation_id, DRUM_AND_BASS.samples(6.0))
    render = await client.stub.Render(export_pb2.RenderRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS)
    assert not render.file.HasField("tempo")
    assert not render.file.HasField("key")


@pytest.mark.parametrize("bpm", [-1.0, float("nan"), 1000.5])
async def test_invalid_tempo_hint_is_rejected(client, bpm):
    requests = build_requests(new_id(), np.zeros((RATE_HZ, 1), dtype=np.float32))
    requests[0].header.tempo_hint_bpm = bpm
    async with raises_rpc_error("INVALID_ARGUMENT", field="header.tempo_hint_bpm"):
        await client.send(requests[:1], close=False)


async def test_rms_and_peak_to_loudness_of_source_and_file(client):
    time = np.arange(8 * RATE_HZ) / RATE_HZ
    sine = (0.5 * np.sin(2 * np.pi * 997 * time)).astype(np.float32)
    response = await export(client, np.stack([sine, sine], axis=1))
    assert response.source.rms_dbfs == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.01)
    assert response.file.rms_dbfs == pytest.approx(response.source.rms_dbfs + response.normalization.gain_db, abs=0.01)
    # A sine on both channels has a loudness equal to its peak (BS.1770-5: 0 LKFS at full scale and 997 Hz).
    assert response.source.peak_to_loudness_lu == pytest.approx(0.0, abs=0.1)
    assert response.file.peak_to_loudness_lu == pytest.approx(0.0, abs=0.1)

    silence = await export(client, np.zeros((RATE_HZ, 2), dtype=np.float32))
    assert not silence.source.HasField("rms_dbfs")
    assert not silence.source.HasField("peak_to_loudness_lu")
