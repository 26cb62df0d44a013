"""Output formats, sample rates and channel counts of exports and renders."""

from __future__ import annotations

import asyncio
import hashlib
import resource
import sys

import numpy as np
import pyebur128
import pytest
import soundfile
import soxr
from structlog.testing import capture_logs

from dgx_music.audio.v1 import audio_pb2
from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1 import export_pb2
from export_service.tagging.containers import read_comment
from tests.support import ffmpeg_decoder, tag_readers
from tests.support.export_client import (
    RATE_HZ,
    TIMEOUT_SECONDS,
    ExportClient,
    build_header,
    finished_spool,
    music,
    new_id,
    output_options,
    raises_rpc_error,
    run_export_service,
)

FORMATS = {
    "WAV_PCM_24": (".wav", "PCM_24"),
    "WAV_PCM_16": (".wav", "PCM_16"),
    "WAV_FLOAT": (".wav", "FLOAT"),
    "FLAC_24": (".flac", "PCM_24"),
    "FLAC_16": (".flac", "PCM_16"),
    "MP3": (".mp3", "MPEG_LAYER_III"),
    "OGG_VORBIS": (".ogg", "VORBIS"),
    "OGG_OPUS": (".opus", "OPUS"),
    "WAV_PCM_32": (".wav", "PCM_32"),
    "AIFF_PCM_24": (".aiff", "PCM_24"),
    "AIFF_PCM_16": (".aiff", "PCM_16"),
    "AIFF_PCM_32": (".aiff", "PCM_32"),
    "AIFF_FLOAT": (".aifc", "FLOAT"),
    "CAF_PCM_24": (".caf", "PCM_24"),
    "CAF_PCM_16": (".caf", "PCM_16"),
    "CAF_PCM_32": (".caf", "PCM_32"),
    "CAF_FLOAT": (".caf", "FLOAT"),
    "W64_PCM_24": (".w64", "PCM_24"),
    "W64_PCM_16": (".w64", "PCM_16"),
    "W64_PCM_32": (".w64", "PCM_32"),
    "W64_FLOAT": (".w64", "FLOAT"),
    "M4A_AAC": (".m4a", ""),
}
"""Format → extension, and libsndfile's name of the encoding; empty for a file that libsndfile cannot read."""


def read_file(path) -> tuple[np.ndarray, int]:
    """Returns the samples and the sample rate, as another program decodes them where libsndfile cannot."""
    if path.suffix == ".m4a":
        return ffmpeg_decoder.decode(path)
    return soundfile.read(path, dtype="float32", always_2d=True)


async def render(
    client: ExportClient, generation_id: str, options: OutputOptions | None = None
) -> export_pb2.RenderResponse:
    return await client.stub.Render(
        export_pb2.RenderRequest(generation_id=generation_id, output=options), timeout=TIMEOUT_SECONDS
    )


async def download(client: ExportClient, generation_id: str, render_id: str = "") -> tuple[str, bytes]:
    """Returns the file's name and bytes."""
    request = export_pb2.DownloadRequest(generation_id=generation_id, render_id=render_id)
    responses = [response async for response in client.stub.Download(request, timeout=TIMEOUT_SECONDS)]
    return responses[0].file_name, b"".join(response.data for response in responses)


def measure(path) -> tuple[float, float]:
    """Measures integrated loudness in LUFS and true peak in dBTP with libebur128."""
    samples, rate = read_file(path)
    mode = pyebur128.MeasurementMode
    meter = pyebur128.R128State(samples.shape[1], rate, mode.MODE_I | mode.MODE_TRUE_PEAK)
    meter.add_frames(samples.ravel(), len(samples))
    peak = max(pyebur128.get_true_peak(meter, channel) for channel in range(samples.shape[1]))
    return pyebur128.get_loudness_global(meter), 20 * np.log10(peak)


def check_response(client: ExportClient, file: export_pb2.ExportResponse, format_: str) -> None:
    """Compares the response with what independent libraries read and measure of the file."""
    path = client.data_dir / file.file_path
    extension, subtype = FORMATS[format_]
    assert path.suffix == extension
    assert file.format == audio_pb2.FileFormat.Value(f"FILE_FORMAT_{format_}")
    assert file.file_size_bytes == path.stat().st_size
    assert file.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    samples, rate = read_file(path)
    assert (rate, samples.shape) == (file.sample_rate_hz, (file.frames, file.channels))
    assert not subtype or soundfile.info(path).subtype == subtype
    loudness, peak = measure(path)
    assert file.file.integrated_lufs == pytest.approx(loudness, abs=0.02)
    assert file.file.true_peak_dbtp == pytest.approx(peak, abs=0.2)


@pytest.mark.parametrize("format_", FORMATS)
async def test_export_in_every_format(client, format_):
    generation_id, samples = new_id(), music(3)
    response = await client.export(generation_id, samples, output=output_options(format_))
    assert (response.sample_rate_hz, response.channels) == (48_000 if format_ == "OGG_OPUS" else RATE_HZ, 2)
    check_response(client, response, format_)
    assert response.file.integrated_lufs == pytest.approx(-16, abs=0.1)
    assert response.frames == 3 * response.sample_rate_hz

    path = client.data_dir / response.file_path
    assert await download(client, generation_id) == (path.name, path.read_bytes())
    read, _ = read_file(path)
    level = audio_pb2.AUDIO_LEVEL_FINAL
    tolerance = 1e-5 if format_ == "M4A_AAC" else 0  # Two builds of FFmpeg differ in the last bits.
    np.testing.assert_allclose(await client.read_audio(generation_id, level=level), read, 0, tolerance)
    np.testing.assert_allclose(await client.read_audio(generation_id, 70_001, level=level), read[70_001:], 0, tolerance)
    waveform = await client.stub.GetWaveform(
        export_pb2.GetWaveformRequest(generation_id=generation_id, points=10), timeout=TIMEOUT_SECONDS
    )
    assert (waveform.length, waveform.sample_rate) == (10, response.sample_rate_hz)
    np.testing.assert_array_equal(await client.read_audio(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE), samples)

    repeated = await client.export(generation_id, samples, output=output_options(format_))
    assert repeated.file_sha256 == response.file_sha256
    assert client.files() == {response.file_path, *finished_spool(generation_id, is_converted=format_ == "OGG_OPUS")}


@pytest.mark.parametrize(
    "format_",
    [*("FLAC_24", "MP3", "OGG_VORBIS", "OGG_OPUS"), *("AIFF_PCM_24", "CAF_PCM_24", "W64_PCM_24", "M4A_AAC")],
)
async def test_stale_attempt_is_rejected_after_restart_in_tagged_formats(tmp_path, format_):
    generation_id = new_id()
    async with run_export_service(tmp_path) as client:
        await client.export(generation_id, music(1), attempt=2, output=output_options(format_))
    async with (
        run_export_service(tmp_path, spool_keep_seconds=0) as client,
        raises_rpc_error("ABORTED", "ATTEMPT_SUPERSEDED"),
    ):
        await client.send([build_header(generation_id, music(1), attempt=1)], close=False)


@pytest.mark.parametrize(
    ("rate", "channels", "out_rate", "out_channels"),
    [(32_000, 2, 44_100, 0), (32_000, 1, 48_000, 2), (48_000, 2, 44_100, 1), (44_100, 2, 32_000, 2), (96_000, 1, 0, 2)],
)
async def test_converted_export_meets_loudness_target(client, rate, channels, out_rate, out_channels):
    samples = music(5, channels)
    options = output_options(sample_rate_hz=out_rate, channels=out_channels, target_lufs=-20, ceiling_dbtp=-2)
    response = await client.export(new_id(), samples, output=options, sample_rate_hz=rate)
    expected = out_rate or rate
    assert (response.sample_rate_hz, response.channels) == (expected, out_channels or channels)
    assert response.frames == (2 * len(samples) * expected + rate) // (2 * rate)
    assert (response.normalization.target_lufs, response.normalization.ceiling_dbtp) == (-20, -2)
    check_response(client, response, "WAV_PCM_24")
    assert measure(client.data_dir / response.file_path)[0] == pytest.approx(-20, abs=0.05)


@pytest.mark.parametrize(
    ("profile", "target"),
    [("STREAMING", -14), ("DEFAULT", -16), ("BROADCAST", -23)],
)
async def test_loudness_profile_sets_target(client, profile, target):
    response = await client.export(new_id(), music(3), output=OutputOptions(profile=f"LOUDNESS_PROFILE_{profile}"))
    assert response.normalization.target_lufs == target
    assert response.file.integrated_lufs == pytest.approx(target, abs=0.05)


@pytest.mark.parametrize("format_", ["WAV_PCM_24", "WAV_FLOAT"])
async def test_profile_none_keeps_level_unless_it_would_clip(client, format_):
    left = output_options(format_, profile="LOUDNESS_PROFILE_NONE")
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
        ("sample_rate_hz", output_options(sample_rate_hz=7_999), "8000 to 192000"),
        ("sample_rate_hz", output_options("OGG_OPUS", sample_rate_hz=44_100), "8000, 12000, 16000, 24000, 48000"),
        ("sample_rate_hz", output_options("MP3", sample_rate_hz=96_000), "44100, 48000"),
        ("channels", output_options(channels=9), "1 or 2"),
        ("profile", OutputOptions(profile=9), "LOUDNESS_PROFILE_STREAMING"),
        ("target_lufs", OutputOptions(target_lufs=3), "LOUDNESS_PROFILE_NONE"),
        ("target_lufs", OutputOptions(target_lufs=-80), "-70 to 0"),
        ("target_lufs", OutputOptions(target_lufs=float("nan")), "-70 to 0"),
        ("ceiling_dbtp", OutputOptions(ceiling_dbtp=0.5), "-20 to 0"),
        ("bit_rate_kbps", output_options(bit_rate_kbps=96), "which is lossless"),
        ("quality", output_options("M4A_AAC", quality=5), "left out for M4A_AAC"),
        ("publication.title", OutputOptions(publication={"title": "x" * 201}), "at most 200 characters"),
    ],
)
async def test_invalid_output_options_are_rejected_with_alternatives(client, field, options, says):
    async with raises_rpc_error("INVALID_ARGUMENT", field=f"header.output.{field}", match=says):
        await client.send([build_header(new_id(), music(0.1), output=options)], close=False)
    async with raises_rpc_error("INVALID_ARGUMENT", field=f"output.{field}", match=says):
        await render(client, new_id(), options)
    assert client.files() == set()


async def test_options_that_do_not_suit_the_source_are_rejected(client):
    samples, generation_id = music(0.5), new_id()
    unsuitable = output_options("MP3", bit_rate_kbps=100)
    too_large = output_options("AIFF_FLOAT", sample_rate_hz=192_000)
    async with raises_rpc_error("INVALID_ARGUMENT", field="header.output.bit_rate_kbps", match="256 or 320 kbit/s"):
        await client.send([build_header(new_id(), samples, output=unsuitable)], close=False)
    async with raises_rpc_error("INVALID_ARGUMENT", field="header.output.format", match="less than 4 GiB"):
        await client.send([build_header(new_id(), samples, expected=32_000 * 3600, output=too_large)], close=False)
    await client.export(generation_id, samples)
    async with raises_rpc_error("INVALID_ARGUMENT", field="output.bit_rate_kbps", match="for MP3 with 32000 Hz"):
        await render(client, generation_id, unsuitable)


async def test_format_without_its_encoder_is_rejected(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    samples, generation_id, options = music(0.5), new_id(), output_options("M4A_AAC")
    await client.export(generation_id, samples)
    before = client.files()

    def check(output):
        return client.stub.CheckOutput(export_pb2.CheckOutputRequest(output=output), timeout=TIMEOUT_SECONDS)

    async with raises_rpc_error("FAILED_PRECONDITION", "M4A_NOT_INSTALLED", match="pip install 'dgx-music[m4a]'"):
        await check(options)
    async with raises_rpc_error("FAILED_PRECONDITION", "M4A_NOT_INSTALLED"):
        await client.send([build_header(new_id(), samples, output=options)], close=False)
    async with raises_rpc_error("FAILED_PRECONDITION", "M4A_NOT_INSTALLED"):
        await render(client, generation_id, options)
    await check(output_options("MP3"))
    async with raises_rpc_error("INVALID_ARGUMENT", field="output.format"):
        await check(OutputOptions(format=99))
    assert client.files() == before


async def test_renders_with_other_bit_rate_quality_or_publication_are_other_files(client):
    generation_id = new_id()
    await client.export(generation_id, music(1))
    options = [
        output_options("MP3"),
        output_options("MP3", bit_rate_kbps=64),
        output_options("MP3", quality=2),
        output_options("MP3", publication={"title": "Night Drive"}),
        output_options("MP3", publication={"title": "Night Drive", "artist": "A"}),
    ]
    rendered = [await render(client, generation_id, one) for one in options]
    assert len({answer.render_id for answer in rendered}) == len({answer.file.file_sha256 for answer in rendered}) == 5
    assert [await render(client, generation_id, one) for one in options] == rendered
    tags = tag_readers.read_with_mutagen(client.data_dir / rendered[-1].file.file_path)
    assert (tags["title"], tags["artist"]) == ("Night Drive", "A")
    # What a file lacks is taken from the file that it is made of.
    await client.export(
        generation_id, music(1), attempt=2, output=OutputOptions(publication={"title": "T", "album": "B"})
    )
    again = await render(client, generation_id, output_options("OGG_VORBIS", publication={"title": "Night Drive"}))
    tags = tag_readers.read_with_mutagen(client.data_dir / again.file.file_path)
    assert (tags["title"], tags["album"]) == ("Night Drive", "B")


@pytest.mark.parametrize("source", ["M4A_AAC", "OGG_OPUS", "AIFF_FLOAT", "CAF_PCM_16", "W64_PCM_32"])
async def test_file_in_every_container_can_be_rendered(client, source):
    generation_id = new_id()
    exported = await client.export(generation_id, music(2), output=output_options(source, target_lufs=-20))
    rendered = await render(client, generation_id, output_options("FLAC_24", sample_rate_hz=44_100))
    assert (rendered.file.frames, rendered.file.channels) == (2 * 44_100, 2)
    assert rendered.file.file.integrated_lufs == pytest.approx(exported.file.integrated_lufs, abs=0.1)
    original, _ = read_file(client.data_dir / exported.file_path)
    resampled = soxr.resample(original, exported.sample_rate_hz, 44_100)
    samples, _ = read_file(client.data_dir / rendered.file.file_path)
    np.testing.assert_allclose(samples, resampled, atol=1e-3)
    listed = await client.stub.ListFiles(export_pb2.ListFilesRequest(), timeout=TIMEOUT_SECONDS)
    assert {(file.format, file.frames) for file in listed.files} >= {(exported.format, exported.frames)}


@pytest.mark.parametrize("format_", FORMATS)
async def test_render_in_every_format(client, format_):
    generation_id = new_id()
    exported = await client.export(generation_id, music(3), output=output_options(target_lufs=-20))
    options = output_options(format_, channels=1)
    rendered = await render(client, generation_id, options)
    check_response(client, rendered.file, format_)
    assert rendered.file.file_path == f"renders/{generation_id}/{rendered.render_id}{FORMATS[format_][0]}"
    assert (rendered.file.channels, rendered.file.duration_seconds) == (1, 3.0)
    # As loud as the exported file, except that a single channel has half the power of two.
    assert rendered.file.file.integrated_lufs == pytest.approx(rendered.file.source.integrated_lufs, abs=0.1)
    assert rendered.file.source.integrated_lufs < exported.file.integrated_lufs

    path = client.data_dir / rendered.file.file_path
    assert await download(client, generation_id, rendered.render_id) == (path.name, path.read_bytes())
    audio = await client.read_audio(generation_id, level=audio_pb2.AUDIO_LEVEL_FINAL, render_id=rendered.render_id)
    read, _ = read_file(path)
    np.testing.assert_allclose(audio, read, 0, 1e-5 if format_ == "M4A_AAC" else 0)
    waveform = export_pb2.GetWaveformRequest(generation_id=generation_id, render_id=rendered.render_id)
    assert (
        await client.stub.GetWaveform(waveform, timeout=TIMEOUT_SECONDS)
    ).sample_rate == rendered.file.sample_rate_hz
    assert f"generation={generation_id}; attempt=1;" in read_comment(path)
    assert (client.data_dir / exported.file_path).exists()


async def test_concurrent_requests_with_equal_options_create_one_render(client):
    generation_id = new_id()
    await client.export(generation_id, music(5))
    requested = [
        output_options("MP3"),
        output_options("MP3", sample_rate_hz=RATE_HZ),
        output_options("MP3", channels=2),
    ] * 4
    with capture_logs() as logs:
        answers = await asyncio.gather(*(render(client, generation_id, options) for options in requested))
    assert all(answer == answers[0] for answer in answers)
    assert [entry["event"] for entry in logs].count("rendered") == 1
    assert (await render(client, generation_id, output_options("MP3", channels=1))).render_id != answers[0].render_id
    async with run_export_service(client.data_dir) as restarted:
        assert await render(restarted, generation_id, requested[0]) == answers[0]
    description = client.data_dir / "renders" / generation_id / f"{answers[0].render_id}.json"
    description.write_text("{}")  # As if from an incompatible version. The render is created again.
    assert await render(client, generation_id, requested[0]) == answers[0]


async def test_render_louder_than_file(client):
    generation_id = new_id()
    await client.export(generation_id, music(3), output=OutputOptions(profile="LOUDNESS_PROFILE_BROADCAST"))
    rendered = await render(
        client, generation_id, OutputOptions(profile="LOUDNESS_PROFILE_STREAMING", sample_rate_hz=44_100)
    )
    assert rendered.file.source.integrated_lufs == pytest.approx(-23, abs=0.05)
    assert rendered.file.file.integrated_lufs == pytest.approx(-14, abs=0.05)
    check_response(client, rendered.file, "WAV_PCM_24")


async def test_renders_are_deleted_with_generation_and_by_newer_attempt(client):
    generation_id, other = new_id(), new_id()
    for id_ in (generation_id, other):
        await client.export(id_, music(1))
    kept = await render(client, other, output_options("FLAC_24"))
    first = await render(client, generation_id, output_options("FLAC_24"))
    renewed = await client.export(generation_id, music(1, seed=2), attempt=2, output=output_options("OGG_VORBIS"))
    async with raises_rpc_error("NOT_FOUND", "RENDER_NOT_FOUND"):
        await download(client, generation_id, first.render_id)
    assert not any(
        generation_id in name and name.startswith("outputs") for name in client.files() - {renewed.file_path}
    )
    again = await render(client, generation_id, output_options("FLAC_24"))
    assert (again.render_id, again.file.format) == (first.render_id, audio_pb2.FILE_FORMAT_FLAC_24)
    assert again.file.file_sha256 != first.file.file_sha256
    await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS)
    assert not any(generation_id in name for name in client.files())
    assert kept.file.file_path in client.files()
    async with raises_rpc_error("NOT_FOUND", "FILE_NOT_FOUND"):
        await render(client, generation_id)


async def test_invalid_render_and_download_requests_are_rejected(client):
    generation_id = new_id()
    async with raises_rpc_error("NOT_FOUND", "FILE_NOT_FOUND"):
        await render(client, generation_id)
    async with raises_rpc_error("INVALID_ARGUMENT", field="generation_id"):
        await render(client, "../x")
    await client.export(generation_id, music(1))
    async with raises_rpc_error("INVALID_ARGUMENT", field="render_id"):
        await download(client, generation_id, "../x")
    async with raises_rpc_error("NOT_FOUND", "RENDER_NOT_FOUND"):
        await download(client, generation_id, new_id())
    async with raises_rpc_error("INVALID_ARGUMENT", field="render_id"):
        await client.read_audio(generation_id, level=audio_pb2.AUDIO_LEVEL_LIVE, render_id=new_id())


async def test_render_to_full_disk_leaves_no_files(client):
    generation_id = new_id()
    await client.export(generation_id, music(5))
    before = client.files()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        for format_ in ("WAV_FLOAT", "FLAC_24", "MP3", "OGG_VORBIS"):
            async with raises_rpc_error("RESOURCE_EXHAUSTED", "DISK_FULL"):
                await render(client, generation_id, output_options(format_))
            assert client.files() == before
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await render(client, generation_id, output_options("MP3"))


async def test_restart_removes_incomplete_render(tmp_path):
    async with run_export_service(tmp_path) as client:
        generation_id = new_id()
        await client.export(generation_id, music(1))
        rendered = await render(client, generation_id, output_options("FLAC_24"))
        before = client.files()
    (tmp_path / "renders/.landing" / f"{new_id()}.part").write_bytes(b"half a render")
    async with run_export_service(tmp_path) as client:
        assert client.files() == before
        assert await render(client, generation_id, output_options("FLAC_24")) == rendered
