"""The library on a real disk."""

from __future__ import annotations

import time
import uuid

import numpy as np
import pytest
import soundfile

from dgx_music.errors import Aborted
from export_service.library.store import Library, read_attempt, read_audio_properties
from export_service.tagging.tags import FileTags

ID = "123e4567-e89b-12d3-a456-426614174000"


@pytest.fixture
def library(tmp_path):
    library = Library(tmp_path)
    library.open()
    return library


def commit(library, generation_id=ID, content=b"audio", attempt=1, extension=".wav"):
    staged = library.staging_path(generation_id, attempt)
    staged.write_bytes(content)
    return library.commit(staged, generation_id, extension, lambda: None)


def test_commit_moves_file_to_folder_of_utc_day(library, tmp_path):
    before = time.strftime("%Y/%m/%d", time.gmtime())
    path = commit(library)
    after = time.strftime("%Y/%m/%d", time.gmtime())
    assert library.relative_path(path) in {f"outputs/{day}/{ID}.wav" for day in (before, after)}
    assert path.read_bytes() == b"audio"
    assert not list(tmp_path.rglob("*.part"))


def test_find_in_another_process(library, tmp_path):
    path = commit(library)
    assert Library(tmp_path).find(ID) == path
    assert Library(tmp_path).find(str(uuid.uuid4())) is None


def test_commit_replaces_file_of_an_earlier_day(library, tmp_path):
    old = tmp_path / "outputs/2020/01/02" / f"{ID}.wav"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    assert commit(library, content=b"new") == old
    assert [path.read_bytes() for path in tmp_path.rglob("*.wav")] == [b"new"]


def test_vetoed_commit_leaves_old_file(library):
    path = commit(library, content=b"old")
    staged = library.staging_path(ID, 2)
    staged.write_bytes(b"new")

    def veto():
        raise Aborted("superseded", reason="ATTEMPT_SUPERSEDED")

    with pytest.raises(Aborted):
        library.commit(staged, ID, ".wav", veto)
    assert path.read_bytes() == b"old"


def test_open_removes_incomplete_files(library, tmp_path):
    library.staging_path(ID, 3).write_bytes(b"half")
    path = commit(library)
    Library(tmp_path).open()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_delete_returns_whether_there_was_a_file(library):
    path = commit(library)
    assert library.delete(ID)
    assert not path.exists()
    assert not library.delete(ID)
    assert library.find(ID) is None


def test_two_files_after_crash_newer_is_found_and_both_are_deleted(library, tmp_path):
    newer = commit(library).with_suffix(".flac")
    newer.write_bytes(b"newer")
    restarted = Library(tmp_path)
    assert restarted.find(ID) == newer
    assert restarted.delete(ID)
    assert not list(tmp_path.rglob(f"{ID}.*"))


def test_path_cache_is_bounded(library, monkeypatch):
    monkeypatch.setattr("export_service.library.store.MAX_CACHED_PATHS", 2)
    ids = [str(uuid.uuid4()) for _ in range(4)]
    paths = [commit(library, generation_id) for generation_id in ids]
    assert [library.find(generation_id) for generation_id in ids] == paths
    assert len(library._cached_paths) == 2


def test_damaged_file_has_no_attempt(library):
    commit(library, content=b"not audio")
    assert library.find_attempt(ID) == 0


def test_attempt_and_properties_are_read_from_file(tmp_path):
    path = tmp_path / "a.wav"
    tags = FileTags(ID, 4, "dgx-music 1", "a")
    with soundfile.SoundFile(path, "w", samplerate=32_000, channels=2, subtype="PCM_24") as file:
        file.comment = tags.comment
        file.write(np.zeros((321, 2)))
    assert read_attempt(path) == 4
    properties = read_audio_properties(path)
    assert (properties.sample_rate_hz, properties.channels, properties.frames) == (32_000, 2, 321)
