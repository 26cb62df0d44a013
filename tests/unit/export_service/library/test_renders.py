"""The description that lies beside each render on disk."""

from __future__ import annotations

import hashlib
import json

import pytest

from export_service.dsp.normalization import LoudnessTarget
from export_service.formats.provenance import staged_manifest_path
from export_service.library.renders import MASTERED_FILE_JSON, RenderSpec, RenderStore
from service_runtime.audio.output_options import FileFormat, PublicationTags

ID, RENDER = "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001"
LOUDNESS = {
    "loudness": {"integrated_lufs": -20.0, "max_momentary_lufs": -18.0, "max_short_term_lufs": -19.0, "range_lu": None},
    "true_peak_dbtp": -6.0,
    "sample_peak_dbfs": -6.5,
    "rms_dbfs": -21.0,
    "seconds": 2.0,
}
DESCRIPTION = {
    "format": "flac_24",
    "sample_rate_hz": 32_000,
    "channels": 2,
    "frames": 64_000,
    "file_size_bytes": 1000,
    "file_sha256": "ab",
    "source": LOUDNESS,
    "file": LOUDNESS,
    "normalization": {
        "mode": "limited",
        "aim": {"target_lufs": -16.0, "ceiling_dbtp": None},
        "gain_db": 4.0,
        "shortfall_lu": 0.0,
        "reason": "",
        "largest_reduction_db": 0.0,
        "limited_share": 0.0,
    },
    "marks": ["vorbis_comment"],
}
"""As on disk. Renames in the code must not change it, or existing renders would be created again."""


def test_load_reads_description_of_earlier_version(tmp_path):
    folder = tmp_path / "renders" / ID
    folder.mkdir(parents=True)
    (folder / f"{RENDER}.flac").touch()
    (folder / f"{RENDER}.json").write_text(json.dumps(DESCRIPTION))
    render = RenderStore(tmp_path).load(ID, RENDER)
    assert render is not None
    assert (render.file.frames, render.file.file_sha256) == (64_000, "ab")
    assert json.loads(MASTERED_FILE_JSON.dump_json(render.file, by_alias=True)) == DESCRIPTION | {"own_tags": []}


def test_load_without_valid_description_returns_none(tmp_path):
    folder = tmp_path / "renders" / ID
    folder.mkdir(parents=True)
    (folder / f"{RENDER}.flac").touch()
    assert RenderStore(tmp_path).load(ID, RENDER) is None
    (folder / f"{RENDER}.json").write_text("{}")
    assert RenderStore(tmp_path).load(ID, RENDER) is None


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (RenderSpec(FileFormat.MP3, 32_000, 2, LoudnessTarget(None, -1.0)), "438f942b-218a-5191-baec-89c57c4fe1b4"),
        (
            RenderSpec(FileFormat.FLAC_24, 44_100, 1, LoudnessTarget(-14.0, -2.0)),
            "9b652a36-8a12-5dab-bed7-57b0b129dc06",
        ),
    ],
)
def test_render_id_of_an_earlier_version_is_the_same(spec, expected):
    assert spec.render_id(ID) == expected


def test_different_specs_have_different_render_ids():
    added = (
        {},
        {"bit_rate_kbps": 96},
        {"bit_rate_kbps": 128},
        {"quality": 0.0},
        {"quality": 9.0},
        {"publication": PublicationTags(title="a")},
        {"publication": PublicationTags(artist="a")},
        {"publication": PublicationTags(title="a b")},
        {"publication": PublicationTags(title="a", artist="b")},
    )
    ids = {RenderSpec(FileFormat.MP3, 32_000, 2, LoudnessTarget(None, -1.0), **one).render_id(ID) for one in added}
    assert len(ids) == len(added)


class TestRecovery:
    """What `open` does with the files that a crash left."""

    AUDIO = b"fLaC"

    @pytest.fixture
    def folder(self, tmp_path):
        """The folder of the generation's renders, with the description of a render of these bytes."""
        RenderStore(tmp_path).open()
        folder = tmp_path / "renders" / ID
        folder.mkdir()
        description = {**DESCRIPTION, "file_sha256": hashlib.sha256(self.AUDIO).hexdigest()}
        (folder / f"{RENDER}.json").write_text(json.dumps(description))
        return folder

    def staged(self, tmp_path):
        return RenderStore(tmp_path).staging_path(RENDER)

    def reopen(self, tmp_path):
        RenderStore(tmp_path).open()
        assert not list(tmp_path.rglob("*.part"))

    def test_render_is_moved_if_its_description_is_in_place(self, tmp_path, folder):
        (folder / f"{RENDER}.flac").write_bytes(b"the previous version")
        (folder / f"{RENDER}.c2pa").write_bytes(b"its manifest")
        self.staged(tmp_path).write_bytes(self.AUDIO)
        staged_manifest_path(self.staged(tmp_path)).write_bytes(b"manifest")
        self.reopen(tmp_path)
        assert (folder / f"{RENDER}.flac").read_bytes() == self.AUDIO
        assert (folder / f"{RENDER}.c2pa").read_bytes() == b"manifest"
        assert RenderStore(tmp_path).load(ID, RENDER) is not None

    def test_manifest_is_moved_if_its_render_was(self, tmp_path, folder):
        (folder / f"{RENDER}.flac").write_bytes(self.AUDIO)
        staged_manifest_path(self.staged(tmp_path)).write_bytes(b"manifest")
        self.reopen(tmp_path)
        assert (folder / f"{RENDER}.c2pa").read_bytes() == b"manifest"

    def test_incomplete_new_version_is_removed_and_the_old_one_kept(self, tmp_path, folder):
        (folder / f"{RENDER}.flac").write_bytes(self.AUDIO)
        self.staged(tmp_path).write_bytes(b"half")
        self.reopen(tmp_path)
        assert (folder / f"{RENDER}.flac").read_bytes() == self.AUDIO
        assert RenderStore(tmp_path).load(ID, RENDER) is not None

    def test_description_without_render_is_removed(self, tmp_path, folder):
        self.staged(tmp_path).write_bytes(b"damaged")
        self.reopen(tmp_path)
        assert list(folder.iterdir()) == []

    def test_unreadable_description_is_left_alone(self, tmp_path, folder):
        (folder / f"{RENDER}.json").write_text("{}")
        self.staged(tmp_path).write_bytes(self.AUDIO)
        self.reopen(tmp_path)
        assert [path.name for path in folder.iterdir()] == [f"{RENDER}.json"]
