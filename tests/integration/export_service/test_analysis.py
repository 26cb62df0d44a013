"""Tempo, key and dynamics in what an export answers, and in what is stored of a generation, over real gRPC."""

from __future__ import annotations

import numpy as np
import pytest

from dgx_music.export.v1 import export_pb2
from tests.support.export_client import RATE, TIMEOUT, Client, new_id, parts, refused
from tests.support.sketch_clips import Clip

DRUM_AND_BASS = Clip("drum and bass at 174 BPM in F minor", "drum and bass", 174.0, "F minor", 3)


async def export(client: Client, samples: np.ndarray, tempo_hint_bpm: float = 0.0) -> export_pb2.ExportResponse:
    """Without tags: what comes back was heard."""
    requests = parts(new_id(), samples, tags=None)
    requests[0].header.tempo_hint_bpm = tempo_hint_bpm
    return await client.send(requests)


async def test_an_export_tells_tempo_and_key(client):
    samples = DRUM_AND_BASS.samples(12.0)
    heard = await export(client, samples)
    assert {round(heard.tempo.bpm), round(heard.tempo.alternative_bpm)} == {87, 174}
    assert heard.key.name == "F minor"
    assert 0.1 < heard.tempo.confidence <= 1
    assert 0.65 < heard.key.confidence <= 1

    hinted = await export(client, samples, tempo_hint_bpm=170)
    assert hinted.tempo.bpm == pytest.approx(174, rel=0.005)
    assert hinted.key == heard.key


async def test_a_file_of_another_rate_is_heard_the_same(client):
    samples = DRUM_AND_BASS.samples(6.0)
    as_it_is = await export(client, samples)
    requests = parts(new_id(), samples)
    requests[0].header.output.sample_rate_hz, requests[0].header.output.channels = 44_100, 1
    converted = await client.send(requests)
    assert (converted.tempo, converted.key) == (as_it_is.tempo, as_it_is.key)


async def test_what_is_too_short_or_has_neither_says_neither(client):
    noise = 0.1 * np.random.default_rng(1).standard_normal((6 * RATE, 2))
    for samples in (DRUM_AND_BASS.samples(4.9), noise.astype(np.float32), np.zeros((6 * RATE, 1), dtype=np.float32)):
        answer = await export(client, samples)
        assert not answer.HasField("tempo")
        assert not answer.HasField("key")


async def test_a_render_has_neither(client):
    generation_id = new_id()
    await client.export(generation_id, DRUM_AND_BASS.samples(6.0))
    render = await client.stub.Render(export_pb2.RenderRequest(generation_id=generation_id), timeout=TIMEOUT)
    assert not render.file.HasField("tempo")
    assert not render.file.HasField("key")


@pytest.mark.parametrize("bpm", [-1.0, float("nan"), 1000.5])
async def test_a_hint_that_is_no_tempo_is_refused(client, bpm):
    requests = parts(new_id(), np.zeros((RATE, 1), dtype=np.float32))
    requests[0].header.tempo_hint_bpm = bpm
    async with refused("INVALID_ARGUMENT", field="header.tempo_hint_bpm"):
        await client.send(requests[:1], close=False)


async def test_root_mean_square_and_dynamic_range_are_those_of_source_and_file(client):
    time = np.arange(8 * RATE) / RATE
    sine = (0.5 * np.sin(2 * np.pi * 997 * time)).astype(np.float32)
    answer = await export(client, np.stack([sine, sine], axis=1))
    assert answer.source.rms_dbfs == pytest.approx(20 * np.log10(0.5) - 3.01, abs=0.01)
    assert answer.file.rms_dbfs == pytest.approx(answer.source.rms_dbfs + answer.normalization.gain_db, abs=0.01)
    # A sine on both channels is as loud as its peak (BS.1770-5: 0 LKFS at full scale and 997 Hz).
    assert answer.source.peak_to_loudness_lu == pytest.approx(0.0, abs=0.1)
    assert answer.file.peak_to_loudness_lu == pytest.approx(0.0, abs=0.1)

    silence = await export(client, np.zeros((RATE, 2), dtype=np.float32))
    assert not silence.source.HasField("rms_dbfs")
    assert not silence.source.HasField("peak_to_loudness_lu")
