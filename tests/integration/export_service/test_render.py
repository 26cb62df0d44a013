"""Files in every format, at any sample rate and channel count, and renders of finished ones, over real gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import resource

import numpy as np
import pyebur128
import pytest
import soundfile
from structlog.testing import capture_logs

from dgx_music.audio.v1 import audio_pb2
from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1 import export_pb2
from tests.support.export_client import RATE, TIMEOUT, Client, header, music, new_id, output, refused, serving

FORMATS = {
    "WAV_PCM_24": (".wav", "PCM_24"),
    "WAV_PCM_16": (".wav", "PCM_16"),
    "WAV_FLOAT": (".wav", "FLOAT"),
    "FLAC_24": (".flac", "PCM_24"),
    "FLAC_16": (".flac", "PCM_16"),
    "MP3": (".mp3", "MPEG_LAYER_III"),
    "OGG_VORBIS": (".ogg", "VORBIS"),
    "OGG_OPUS": (".opus", "OPUS"),
}


async def render(client: Client, generation_id: str, options: OutputOptions | None = None) -> export_pb2.RenderResponse:
    return await client.stub.Render(
        export_pb2.RenderRequest(generation_id=generation_id, output=options), timeout=TIMEOUT
    )


async def download(client: Client, generation_id: str, render_id: str = "") -> tuple[str, bytes]:
    """The file's name and bytes."""
    request = export_pb2.DownloadRequest(generation_id=generation_id, render_id=render_id)
    responses = [response async for response in client.stub.Download(request, timeout=TIMEOUT)]
    return responses[0].file_name, b"".join(response.data for response in responses)


def measured(path) -> tuple[float, float]:
    """Integrated loudness in LUFS and true peak in dBTP by libebur128."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mode = pyebur128.MeasurementMode
    meter = pyebur128.R128State(samples.shape[1], rate, mode.MODE_I | mode.MODE_TRUE_PEAK)
    meter.add_frames(samples.ravel(), len(samples))
    peak = max(pyebur128.get_true_peak(meter, channel) for channel in range(samples.shape[1]))
    return pyebur128.get_loudness_global(meter), 20 * np.log10(peak)


def require_true(client: Client, file: export_pb2.ExportResponse, format_: str) -> None:
    """What is told of the file is what it is, as others read and measure it."""
    path = client.data_dir / file.file_path
    extension, subtype = FORMATS[format_]
    assert path.suffix == extension
    assert file.format == audio_pb2.FileFormat.Value(f"FILE_FORMAT_{format_}")
    assert file.file_size_bytes == path.stat().st_size
    assert file.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    read = soundfile.info(path)
    assert (read.subtype, read.samplerate, read.channels) == (subtype, file.sample_rate_hz, file.channels)
    assert read.frames == file.frames
    loudness, peak = measured(path)
    assert file.file.integrated_lufs == pytest.approx(loudness, abs=0.02)
    assert file.file.true_peak_dbtp == pytest.approx(peak, abs=0.2)


@pytest.mark.parametrize("format_", FORMATS)
async def test_every_format_is_what_it_is_said_to_be_and_can_be_heard(client, format_):
    generation_id, samples = new_id(), music(3)
    response = await client.export(generation_id, samples, output=output(format_))
    assert (response.sample_rate_hz, response.channels) == (48_000 if format_ == "OGG_OPUS" else RATE, 2)
    require_true(client, response, format_)
    assert response.file.integrated_lufs == pytest.approx(-16, abs=0.1)
    assert response.frames == 3 * response.sample_rate_hz

    path = client.data_dir / response.file_path
    assert await download(client, generation_id) == (path.name, path.read_bytes())
    read, _ = soundfile.read(path, dtype="float32", always_2d=True)
    level = audio_pb2.AUDIO_LEVEL_FINAL
    np.testing.assert_array_equal(await client.hear(generation_id, level=level), read)
    np.testing.assert_array_equal(await client.hear(generation_id, 70_001, level=level), read[70_001:])
    outline = await client.stub.GetWaveform(
        export_pb2.GetWaveformRequest(generation_id=generation_id, points=10), timeout=TIMEOUT
    )
    assert (outline.length, outline.sample_rate) == (10, response.sample_rate_hz)
    np.testing.assert_array_equal(await client.hear(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE), samples)

    repeated = await client.export(generation_id, samples, output=output(format_))
    assert repeated.file_sha256 == response.file_sha256
    assert client.files() == {response.file_path, f"spool/{generation_id}.1.pcm"}


@pytest.mark.parametrize("format_", ["FLAC_24", "MP3", "OGG_VORBIS", "OGG_OPUS"])
async def test_which_attempt_made_a_file_is_known_from_the_file(tmp_path, format_):
    generation_id = new_id()
    async with serving(tmp_path) as client:
        await client.export(generation_id, music(1), attempt=2, output=output(format_))
    async with serving(tmp_path, spool_keep_seconds=0) as client, refused("ABORTED", "ATTEMPT_SUPERSEDED"):
        await client.send([header(generation_id, music(1), attempt=1)], close=False)


@pytest.mark.parametrize(
    ("rate", "channels", "out_rate", "out_channels"),
    [(32_000, 2, 44_100, 0), (32_000, 1, 48_000, 2), (48_000, 2, 44_100, 1), (44_100, 2, 32_000, 2), (96_000, 1, 0, 2)],
)
async def test_other_rates_and_channel_counts_meet_the_target_all_the_same(
    client, rate, channels, out_rate, out_channels
):
    samples = music(5, channels)
    options = output(sample_rate_hz=out_rate, channels=out_channels, target_lufs=-20, ceiling_dbtp=-2)
    response = await client.export(new_id(), samples, output=options, sample_rate_hz=rate)
    expected = out_rate or rate
    assert (response.sample_rate_hz, response.channels) == (expected, out_channels or channels)
    assert response.frames == (2 * len(samples) * expected + rate) // (2 * rate)
    assert (response.normalization.target_lufs, response.normalization.ceiling_dbtp) == (-20, -2)
    require_true(client, response, "WAV_PCM_24")
    assert measured(client.data_dir / response.file_path)[0] == pytest.approx(-20, abs=0.05)


@pytest.mark.parametrize(
    ("profile", "target"),
    [("STREAMING", -14), ("DEFAULT", -16), ("BROADCAST", -23)],
)
async def test_profiles(client, profile, target):
    response = await client.export(new_id(), music(3), output=OutputOptions(profile=f"LOUDNESS_PROFILE_{profile}"))
    assert response.normalization.target_lufs == target
    assert response.file.integrated_lufs == pytest.approx(target, abs=0.05)


@pytest.mark.parametrize("format_", ["WAV_PCM_24", "WAV_FLOAT"])
async def test_no_profile_leaves_the_level_unless_it_would_clip(client, format_):
    left = output(format_, profile="LOUDNESS_PROFILE_NONE")
    quiet = await client.export(new_id(), music(1, level=0.1), output=left)
    assert quiet.normalization.gain_db == 0
    loud = await client.export(new_id(), music(1, level=20), output=left)
    assert loud.file.true_peak_dbtp == pytest.approx(
        loud.source.true_peak_dbtp if format_ == "WAV_FLOAT" else 0, abs=1e-3
    )


@pytest.mark.parametrize(
    ("field", "options", "says"),
    [
        ("format", OutputOptions(format=99), "FILE_FORMAT_FLAC_24"),
        ("sample_rate_hz", output(sample_rate_hz=7_999), "8000 to 192000"),
        ("sample_rate_hz", output("OGG_OPUS", sample_rate_hz=44_100), "8000, 12000, 16000, 24000, 48000"),
        ("sample_rate_hz", output("MP3", sample_rate_hz=96_000), "44100, 48000"),
        ("channels", output(channels=9), "1 or 2"),
        ("profile", OutputOptions(profile=9), "LOUDNESS_PROFILE_STREAMING"),
        ("target_lufs", OutputOptions(target_lufs=3), "LOUDNESS_PROFILE_NONE"),
        ("target_lufs", OutputOptions(target_lufs=-80), "-70 to 0"),
        ("target_lufs", OutputOptions(target_lufs=float("nan")), "-70 to 0"),
        ("ceiling_dbtp", OutputOptions(ceiling_dbtp=0.5), "-20 to 0"),
    ],
)
async def test_options_that_can_not_be_and_the_way_out(client, field, options, says):
    async with refused("INVALID_ARGUMENT", field=f"header.output.{field}", says=says):
        await client.send([header(new_id(), music(0.1), output=options)], close=False)
    async with refused("INVALID_ARGUMENT", field=f"output.{field}", says=says):
        await render(client, new_id(), options)
    assert client.files() == set()


# Render.


@pytest.mark.parametrize("format_", FORMATS)
async def test_a_render_beside_the_finished_file(client, format_):
    generation_id = new_id()
    made = await client.export(generation_id, music(3), output=output(target_lufs=-20))
    options = output(format_, channels=1)
    got = await render(client, generation_id, options)
    require_true(client, got.file, format_)
    assert got.file.file_path == f"renders/{generation_id}/{got.render_id}{FORMATS[format_][0]}"
    assert (got.file.channels, got.file.duration_seconds) == (1, 3.0)
    # As loud as it is: of two channels, half of the power.
    assert got.file.file.integrated_lufs == pytest.approx(got.file.source.integrated_lufs, abs=0.1)
    assert got.file.source.integrated_lufs < made.file.integrated_lufs

    path = client.data_dir / got.file.file_path
    assert await download(client, generation_id, got.render_id) == (path.name, path.read_bytes())
    heard = await client.hear(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL, render_id=got.render_id)
    read, _ = soundfile.read(path, dtype="float32", always_2d=True)
    np.testing.assert_array_equal(heard, read)
    waveform = export_pb2.GetWaveformRequest(generation_id=generation_id, render_id=got.render_id)
    assert (await client.stub.GetWaveform(waveform, timeout=TIMEOUT)).sample_rate == got.file.sample_rate_hz
    with soundfile.SoundFile(path) as file:
        assert f"generation={generation_id}; attempt=1;" in file.comment
    assert (client.data_dir / made.file_path).exists()


async def test_the_same_options_give_the_same_render_made_once(client):
    generation_id = new_id()
    await client.export(generation_id, music(5))
    asked = [output("MP3"), output("MP3", sample_rate_hz=RATE), output("MP3", channels=2)] * 4
    with capture_logs() as told:
        answers = await asyncio.gather(*(render(client, generation_id, options) for options in asked))
    assert all(answer == answers[0] for answer in answers)
    assert [one["event"] for one in told].count("rendered") == 1
    assert (await render(client, generation_id, output("MP3", channels=1))).render_id != answers[0].render_id
    async with serving(client.data_dir) as restarted:
        assert await render(restarted, generation_id, asked[0]) == answers[0]
    figures = client.data_dir / "renders" / generation_id / f"{answers[0].render_id}.json"
    figures.write_text("{}")  # Of another version: it is made again, the same.
    assert await render(client, generation_id, asked[0]) == answers[0]


async def test_a_render_can_be_louder_than_the_file(client):
    generation_id = new_id()
    await client.export(generation_id, music(3), output=OutputOptions(profile="LOUDNESS_PROFILE_BROADCAST"))
    got = await render(
        client, generation_id, OutputOptions(profile="LOUDNESS_PROFILE_STREAMING", sample_rate_hz=44_100)
    )
    assert got.file.source.integrated_lufs == pytest.approx(-23, abs=0.05)
    assert got.file.file.integrated_lufs == pytest.approx(-14, abs=0.05)
    require_true(client, got.file, "WAV_PCM_24")


async def test_renders_go_with_their_generation_and_with_a_newer_attempt(client):
    generation_id, other = new_id(), new_id()
    for one in (generation_id, other):
        await client.export(one, music(1))
    kept = await render(client, other, output("FLAC_24"))
    first = await render(client, generation_id, output("FLAC_24"))
    renewed = await client.export(generation_id, music(1, seed=2), attempt=2, output=output("OGG_VORBIS"))
    async with refused("NOT_FOUND", "RENDER_NOT_FOUND"):
        await download(client, generation_id, first.render_id)
    assert not any(
        generation_id in name and name.startswith("outputs") for name in client.files() - {renewed.file_path}
    )
    again = await render(client, generation_id, output("FLAC_24"))
    assert (again.render_id, again.file.format) == (first.render_id, audio_pb2.FILE_FORMAT_FLAC_24)
    assert again.file.file_sha256 != first.file.file_sha256
    await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT)
    assert not any(generation_id in name for name in client.files())
    assert kept.file.file_path in client.files()
    async with refused("NOT_FOUND", "FILE_NOT_FOUND"):
        await render(client, generation_id)


async def test_what_can_not_be_rendered_or_fetched(client):
    generation_id = new_id()
    async with refused("NOT_FOUND", "FILE_NOT_FOUND"):
        await render(client, generation_id)
    async with refused("INVALID_ARGUMENT", field="generation_id"):
        await render(client, "../x")
    await client.export(generation_id, music(1))
    async with refused("INVALID_ARGUMENT", field="render_id"):
        await download(client, generation_id, "../x")
    async with refused("NOT_FOUND", "RENDER_NOT_FOUND"):
        await download(client, generation_id, new_id())
    async with refused("INVALID_ARGUMENT", field="render_id"):
        await client.hear(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE, render_id=new_id())


async def test_no_room_for_a_render(client):
    generation_id = new_id()
    await client.export(generation_id, music(5))
    before = client.files()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        for format_ in ("WAV_FLOAT", "FLAC_24", "MP3", "OGG_VORBIS"):
            async with refused("RESOURCE_EXHAUSTED", "DISK_FULL"):
                await render(client, generation_id, output(format_))
            assert client.files() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await render(client, generation_id, output("MP3"))


async def test_what_broke_off_is_swept_at_the_next_start(tmp_path):
    async with serving(tmp_path) as client:
        generation_id = new_id()
        await client.export(generation_id, music(1))
        made = await render(client, generation_id, output("FLAC_24"))
        before = client.files()
    (tmp_path / "renders/.landing" / f"{new_id()}.part").write_bytes(b"half a render")
    async with serving(tmp_path) as client:
        assert client.files() == before
        assert await render(client, generation_id, output("FLAC_24")) == made
