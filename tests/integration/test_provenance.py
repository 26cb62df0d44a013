"""What a file says of itself, from the request to the file and its renders."""

from __future__ import annotations

import json
import struct

import c2pa
import mutagen
import numpy as np
import pytest
import soundfile

from dgx_music.audio.v1.audio_pb2 import OutputOptions
from dgx_music.errors import FailedPrecondition
from dgx_music.export.v1 import export_pb2
from dgx_music.export.v1.export_pb2 import ProvenanceMark, Tags
from export_service.config import ExportSettings
from export_service.formats.tags import FileTags
from export_service.rpc.server import build
from tests.support.certificates import make_credentials
from tests.support.export_client import TIMEOUT, Client, music, new_id, output, serving
from tests.support.sketch_clips import RATE_HZ, clips

MARKS = {
    "WAV_PCM_24": ["INFO", "BEXT"],
    "FLAC_16": ["VORBIS_COMMENT"],
    "MP3": ["ID3"],
    "OGG_VORBIS": ["VORBIS_COMMENT"],
    "OGG_OPUS": ["VORBIS_COMMENT"],
}


async def render(client: Client, generation_id: str, options: OutputOptions) -> export_pb2.ExportResponse:
    request = export_pb2.RenderRequest(generation_id=generation_id, output=options)
    return (await client.stub.Render(request, timeout=TIMEOUT)).file


def marks(response: export_pb2.ExportResponse) -> list[str]:
    return [ProvenanceMark.Name(mark).removeprefix("PROVENANCE_MARK_") for mark in response.marks]


def tags_of(client: Client, generation_id: str, response: export_pb2.ExportResponse) -> FileTags:
    with soundfile.SoundFile(client.data_dir / response.file_path) as file:
        return FileTags.parse_comment(file.comment, generation_id)


def bext_figures(path) -> list[int]:
    """Integrated loudness, range, true peak, momentary and short-term maximum, each × 100."""
    content = path.read_bytes()
    return list(struct.unpack_from("<5h", content, content.index(b"bext") + 8 + 412))


def hundredths(loudness: export_pb2.Loudness) -> list[int]:
    names = "integrated_lufs", "range_lu", "true_peak_dbtp", "max_momentary_lufs", "max_short_term_lufs"
    return [round(100 * getattr(loudness, name)) for name in names]


async def test_a_render_has_the_same_tags_and_its_own_figures(client):
    generation_id = new_id()
    known = Tags(
        model_name="sketch", model_version="1", genre="house", bpm=124, key="C minor", license="CC0", prompt="p"
    )
    made = await client.export(generation_id, music(5), tags=known, output=output("WAV_PCM_16"))
    tags = tags_of(client, generation_id, made)
    assert (tags.model, tags.genre, tags.bpm, tags.key, tags.license, tags.prompt) == (
        ("sketch 1", "house", 124, "C minor", "CC0", "p")
    )
    assert bext_figures(client.data_dir / made.file_path) == hundredths(made.file)
    for format_, expected in MARKS.items():
        got = await render(client, generation_id, output(format_, target_lufs=-20))
        assert marks(got) == expected
        assert tags_of(client, generation_id, got) == tags
        if format_.startswith("WAV"):
            assert bext_figures(client.data_dir / got.file_path) == hundredths(got.file) != hundredths(made.file)


async def test_a_limited_file_has_its_own_figures_too(client):
    made = await client.export(new_id(), music(5, seed=2), output=output(target_lufs=-9))
    assert made.normalization.mode == export_pb2.NORMALIZATION_MODE_LIMITED
    assert bext_figures(client.data_dir / made.file_path) == hundredths(made.file)


async def test_what_the_model_does_not_know_is_written_as_heard(client):
    clip = next(clip for clip in clips(0) if clip.genre == "house")
    samples = clip.samples(16)
    generation_id = new_id()
    made = await client.export(
        generation_id, samples, tags=Tags(model_name="musicgen"), output=output("MP3"), sample_rate_hz=RATE_HZ
    )
    assert made.HasField("tempo")
    assert made.HasField("key")
    tags = tags_of(client, generation_id, made)
    assert (tags.bpm, tags.key) == (round(made.tempo.bpm, 2), made.key.name)
    read = mutagen.File(client.data_dir / made.file_path).tags
    assert str(read["TBPM"]) == f"{made.tempo.bpm:.0f}"
    assert str(read["TKEY"])[0] == made.key.name[0]


async def test_a_render_that_is_made_again_is_the_same_file(client):
    generation_id = new_id()
    await client.export(generation_id, music(2))
    for format_ in MARKS:
        first = await render(client, generation_id, output(format_, sample_rate_hz=48_000))
        path = client.data_dir / first.file_path
        content = path.read_bytes()
        path.unlink()
        again = await render(client, generation_id, output(format_, sample_rate_hz=48_000))
        assert again == first
        assert path.read_bytes() == content


async def test_with_a_certificate_files_and_renders_are_signed(tmp_path):
    made = make_credentials(tmp_path)
    settings = {"c2pa_certificate": made.certificate, "c2pa_private_key": made.private_key}
    generation_id, samples = new_id(), music(2)
    async with serving(tmp_path / "data", **settings) as client:
        file = await client.export(generation_id, samples)
        rendered = {format_: await render(client, generation_id, output(format_)) for format_ in MARKS}
    async with serving(tmp_path / "plain") as plain:
        unsigned = await plain.export(generation_id, samples)
    with c2pa.Context(c2pa.Settings.from_dict({"trust": {"trust_anchors": made.root}})) as trust:
        for response, kind in (
            (file, "audio/wav"),
            (rendered["MP3"], "audio/mpeg"),
            (rendered["FLAC_16"], "audio/flac"),
        ):
            assert marks(response)[-1] == "C2PA"
            path = client.data_dir / response.file_path
            assert path.stat().st_size == response.file_size_bytes
            with path.open("rb") as signed:
                assert json.loads(c2pa.Reader(kind, signed, context=trust).json())["validation_state"] == "Trusted"
    assert marks(rendered["OGG_OPUS"]) == marks(rendered["OGG_VORBIS"]) == ["VORBIS_COMMENT"]
    with_and_without = [
        soundfile.read(folder / response.file_path, dtype="int32")[0]
        for folder, response in ((client.data_dir, file), (plain.data_dir, unsigned))
    ]
    np.testing.assert_array_equal(*with_and_without)
    assert not list((tmp_path / "data").rglob("*.part"))


def test_a_certificate_that_can_not_sign_is_refused_at_the_start(tmp_path, monkeypatch):
    made, other = make_credentials(tmp_path), make_credentials(tmp_path, name="other")
    monkeypatch.setenv("DGX_MUSIC_C2PA_CERTIFICATE", str(made.certificate))
    monkeypatch.setenv("DGX_MUSIC_C2PA_PRIVATE_KEY", str(other.private_key))
    with pytest.raises(FailedPrecondition, match=r"signer\.pem and .*other\.key can't sign: "):
        build(ExportSettings(data_dir=tmp_path))
