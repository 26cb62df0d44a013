"""Tags, loudness figures and signatures in exported files and renders."""

from __future__ import annotations

import json
import struct

import c2pa
import grpc.aio
import mutagen
import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.export.v1 import export_pb2
from dgx_music.export.v1.export_pb2 import ProvenanceMark, Tags
from export_service.tagging.tags import FileTags
from tests.support.certificates import make_credentials
from tests.support.export_client import TIMEOUT_SECONDS, ExportClient, music, new_id, output_options, run_export_service
from tests.support.sketch_clips import RATE_HZ, clips

MARKS = {
    "WAV_PCM_24": ["INFO", "BEXT", "ID3"],
    "FLAC_16": ["VORBIS_COMMENT"],
    "MP3": ["ID3"],
    "OGG_VORBIS": ["VORBIS_COMMENT"],
    "OGG_OPUS": ["VORBIS_COMMENT"],
}


async def render(client: ExportClient, generation_id: str, options: OutputOptions) -> export_pb2.ExportResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=options)
    return (await client.stub.Render(request, timeout=TIMEOUT_SECONDS)).file


def mark_names(response: export_pb2.ExportResponse) -> list[str]:
    return [ProvenanceMark.Name(mark).removeprefix("PROVENANCE_MARK_") for mark in response.marks]


def read_tags(client: ExportClient, generation_id: str, response: export_pb2.ExportResponse) -> FileTags:
    with soundfile.SoundFile(client.data_dir / response.file_path) as file:
        return FileTags.parse_comment(file.comment, generation_id)


def read_bext_loudness(path) -> list[int]:
    """Reads integrated loudness, range, true peak, momentary and short-term maximum, each times 100."""
    content = path.read_bytes()
    return list(struct.unpack_from("<5h", content, content.index(b"bext") + 8 + 412))


def hundredths(loudness: export_pb2.Loudness) -> list[int]:
    names = "integrated_lufs", "range_lu", "true_peak_dbtp", "max_momentary_lufs", "max_short_term_lufs"
    return [round(100 * getattr(loudness, name)) for name in names]


async def test_render_has_tags_of_file_and_its_own_loudness(client):
    generation_id = new_id()
    requested = Tags(
        model_name="sketch", model_version="1", genre="house", bpm=124, key="C minor", license="CC0", prompt="p"
    )
    exported = await client.export(generation_id, music(5), tags=requested, output=output_options("WAV_PCM_16"))
    tags = read_tags(client, generation_id, exported)
    assert (tags.model, tags.genre, tags.bpm, tags.key, tags.license, tags.prompt) == (
        ("sketch 1", "house", 124, "C minor", "CC0", "p")
    )
    assert read_bext_loudness(client.data_dir / exported.file_path) == hundredths(exported.file)
    for format_, expected in MARKS.items():
        rendered = await render(client, generation_id, output_options(format_, target_lufs=-20))
        assert mark_names(rendered) == expected
        assert read_tags(client, generation_id, rendered) == tags
        if format_.startswith("WAV"):
            assert (
                read_bext_loudness(client.data_dir / rendered.file_path)
                == hundredths(rendered.file)
                != hundredths(exported.file)
            )


async def test_limited_file_has_its_own_loudness_in_bext(client):
    exported = await client.export(new_id(), music(5, seed=2), output=output_options(target_lufs=-9))
    assert exported.normalization.mode == export_pb2.NORMALIZATION_MODE_LIMITED
    assert read_bext_loudness(client.data_dir / exported.file_path) == hundredths(exported.file)


async def test_missing_tags_are_filled_from_analysis(client):
    clip = next(clip for clip in clips(0) if clip.genre == "house")
    samples = clip.samples(16)
    generation_id = new_id()
    exported = await client.export(
        generation_id, samples, tags=Tags(model_name="musicgen"), output=output_options("MP3"), sample_rate_hz=RATE_HZ
    )
    assert exported.HasField("tempo")
    assert exported.HasField("key")
    tags = read_tags(client, generation_id, exported)
    assert (tags.bpm, tags.key) == (round(exported.tempo.bpm, 2), exported.key.name)
    read = mutagen.File(client.data_dir / exported.file_path).tags
    assert str(read["TBPM"]) == f"{exported.tempo.bpm:.0f}"
    assert str(read["TKEY"])[0] == exported.key.name[0]


async def test_recreated_render_is_identical(client):
    generation_id = new_id()
    await client.export(generation_id, music(2))
    for format_ in MARKS:
        first = await render(client, generation_id, output_options(format_, sample_rate_hz=48_000))
        path = client.data_dir / first.file_path
        content = path.read_bytes()
        path.unlink()
        again = await render(client, generation_id, output_options(format_, sample_rate_hz=48_000))
        assert again == first
        assert path.read_bytes() == content


async def test_files_and_renders_are_signed_with_certificate(tmp_path):
    credentials = make_credentials(tmp_path)
    settings = {"c2pa_certificate": credentials.certificate, "c2pa_private_key": credentials.private_key}
    generation_id, samples = new_id(), music(2)
    async with run_export_service(tmp_path / "data", **settings) as client:
        file = await client.export(generation_id, samples)
        rendered = {format_: await render(client, generation_id, output_options(format_)) for format_ in MARKS}
    async with run_export_service(tmp_path / "plain") as plain:
        unsigned = await plain.export(generation_id, samples)
    with c2pa.Context(c2pa.Settings.from_dict({"trust": {"trust_anchors": credentials.root}})) as trust:
        for response, kind in (
            (file, "audio/wav"),
            (rendered["MP3"], "audio/mpeg"),
            (rendered["FLAC_16"], "audio/flac"),
        ):
            assert mark_names(response)[-1] == "C2PA"
            path = client.data_dir / response.file_path
            assert path.stat().st_size == response.file_size_bytes
            with path.open("rb") as signed:
                assert json.loads(c2pa.Reader(kind, signed, context=trust).json())["validation_state"] == "Trusted"
        for format_ in ("OGG_OPUS", "OGG_VORBIS"):
            response = rendered[format_]
            assert mark_names(response) == ["VORBIS_COMMENT", "C2PA_SIDECAR"]
            path = client.data_dir / response.file_path
            assert client.data_dir / response.manifest_path == path.with_suffix(".c2pa")
            with path.open("rb") as signed:
                reader = c2pa.Reader("audio/ogg", signed, path.with_suffix(".c2pa").read_bytes(), context=trust)
                assert json.loads(reader.json())["validation_state"] == "Trusted"
    assert not file.manifest_path
    with_and_without = [
        soundfile.read(folder / response.file_path, dtype="int32")[0]
        for folder, response in ((client.data_dir, file), (plain.data_dir, unsigned))
    ]
    np.testing.assert_array_equal(*with_and_without)
    assert not list((tmp_path / "data").rglob("*.part"))


async def test_manifest_beside_file_can_be_downloaded_and_goes_with_the_file(tmp_path):
    credentials = make_credentials(tmp_path)
    settings = {"c2pa_certificate": credentials.certificate, "c2pa_private_key": credentials.private_key}
    generation_id = new_id()
    async with run_export_service(tmp_path / "data", **settings) as client:
        exported = await client.export(generation_id, music(1), output=output_options("OGG_VORBIS"))
        request = export_pb2.RenderRequest(generation_id=generation_id, output=output_options("OGG_OPUS"))
        rendered = await client.stub.Render(request, timeout=TIMEOUT_SECONDS)
        listed = await client.stub.ListFiles(export_pb2.ListFilesRequest(), timeout=TIMEOUT_SECONDS)
        assert {file.file_path for file in listed.files} == {exported.file_path, rendered.file.file_path}
        for file, render_id in ((exported, ""), (rendered.file, rendered.render_id)):
            request = export_pb2.DownloadRequest(generation_id=generation_id, render_id=render_id, manifest=True)
            parts = [part async for part in client.stub.Download(request, timeout=TIMEOUT_SECONDS)]
            manifest = client.data_dir / file.manifest_path
            assert b"".join(part.data for part in parts) == manifest.read_bytes()
            assert parts[0].file_name == manifest.name
        delete = export_pb2.DeleteFileRequest(generation_id=generation_id, render_id=rendered.render_id)
        await client.stub.DeleteFile(delete, timeout=TIMEOUT_SECONDS)
        assert list(client.data_dir.rglob("*.c2pa")) == [client.data_dir / exported.manifest_path]
        # Exported again in a format that holds the manifest, the file takes the place of both.
        again = await client.export(generation_id, music(1), attempt=2, output=output_options("FLAC_16"))
        assert not list(client.data_dir.rglob("*.c2pa"))
        request = export_pb2.DownloadRequest(generation_id=generation_id, manifest=True)
        with pytest.raises(grpc.aio.AioRpcError, match="there is no manifest") as raised:
            await anext(aiter(client.stub.Download(request, timeout=TIMEOUT_SECONDS)))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        assert not again.manifest_path
        await client.export(generation_id, music(1), attempt=3, output=output_options("OGG_VORBIS"))
        await client.stub.DeleteFile(export_pb2.DeleteFileRequest(generation_id=generation_id), timeout=TIMEOUT_SECONDS)
        assert not [path for path in client.data_dir.rglob("*.*") if path.suffix in (".c2pa", ".ogg", ".part")]
