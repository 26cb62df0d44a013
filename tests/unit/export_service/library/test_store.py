"""The library on a real disk."""

from __future__ import annotations

import time
import uuid

import numpy as np
import pytest
import soundfile

from dgx_music.errors import Aborted, NotFound, Unavailable
from export_service.formats.tags import FileTags
from export_service.library.store import Library, attempt_of, format_of
from export_service.library.waveform import waveform

ID = "123e4567-e89b-12d3-a456-426614174000"


def permitted():
    pass


@pytest.fixture
def library(tmp_path):
    library = Library(tmp_path)
    library.open()
    return library


def landed(library, generation_id=ID, content=b"audio", attempt=1, extension=".wav"):
    part = library.part(generation_id, attempt)
    part.write_bytes(content)
    return library.land(part, generation_id, extension, permitted)


def test_lands_under_the_day_in_utc(library, tmp_path):
    before = time.strftime("%Y/%m/%d", time.gmtime())
    path = landed(library)
    after = time.strftime("%Y/%m/%d", time.gmtime())
    assert library.relative(path) in {f"outputs/{day}/{ID}.wav" for day in (before, after)}
    assert path.read_bytes() == b"audio"
    assert not list(tmp_path.rglob("*.part"))


def test_another_process_finds_it(library, tmp_path):
    path = landed(library)
    assert Library(tmp_path).find(ID) == path
    assert Library(tmp_path).find(str(uuid.uuid4())) is None


def test_a_new_one_takes_the_old_ones_place_on_another_day(library, tmp_path):
    old = tmp_path / "outputs/2020/01/02" / f"{ID}.wav"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    assert landed(library, content=b"new") == old
    assert [path.read_bytes() for path in tmp_path.rglob("*.wav")] == [b"new"]


def test_a_refused_permit_leaves_the_old_file(library):
    path = landed(library, content=b"old")
    part = library.part(ID, 2)
    part.write_bytes(b"new")

    def refuse():
        raise Aborted("superseded", reason="ATTEMPT_SUPERSEDED")

    with pytest.raises(Aborted):
        library.land(part, ID, ".wav", refuse)
    assert path.read_bytes() == b"old"


def test_sweeps_parts_at_start(library, tmp_path):
    library.part(ID, 3).write_bytes(b"half")
    path = landed(library)
    Library(tmp_path).open()
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [path]


def test_deletes_once(library):
    path = landed(library)
    assert library.delete(ID)
    assert not path.exists()
    assert not library.delete(ID)
    assert library.find(ID) is None


def test_remembers_no_more_than_it_should(library, monkeypatch):
    monkeypatch.setattr("export_service.library.store.REMEMBERED_PATHS", 2)
    ids = [str(uuid.uuid4()) for _ in range(4)]
    paths = [landed(library, one) for one in ids]
    assert [library.find(one) for one in ids] == paths


def test_a_damaged_file_can_be_exported_again(library):
    path = landed(library, content=b"no audio at all")
    assert library.attempt(ID) == 0
    with pytest.raises(Unavailable, match="damaged"):
        waveform(path, 10)
    path.unlink()
    with pytest.raises(NotFound):
        waveform(path, 10)


def test_attempt_and_format_stand_in_the_file(tmp_path):
    path = tmp_path / "a.wav"
    tags = FileTags(ID, 4, "dgx-music 1", "a")
    with soundfile.SoundFile(path, "w", samplerate=32_000, channels=2, subtype="PCM_24") as file:
        file.comment = tags.comment
        file.write(np.zeros((321, 2)))
    assert attempt_of(path) == 4
    form = format_of(path)
    assert (form.sample_rate_hz, form.channels, form.frames) == (32_000, 2, 321)


def test_of_two_files_that_a_crash_left_the_newer_one_counts_and_both_are_deleted(library, tmp_path):
    path = landed(library)
    newer = path.with_suffix(".flac")
    newer.write_bytes(b"newer")
    again = Library(tmp_path)
    assert again.find(ID) == newer
    assert again.delete(ID)
    assert not list(tmp_path.rglob(f"{ID}.*"))
