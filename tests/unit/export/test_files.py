"""Library, spool, tags and outline, on a real disk."""

from __future__ import annotations

import os
import threading
import time
import uuid

import numpy as np
import pytest
import soundfile

from dgx_music.errors import Aborted, NotFound, ResourceExhausted, Unavailable
from export_service.formats.tags import FileTags
from export_service.library import filesystem
from export_service.library.filesystem import sha256_of
from export_service.library.store import Library, attempt_of, format_of
from export_service.library.waveform import waveform
from export_service.streaming.spool import SpoolFolder

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
    assert len(sha256_of(path)) == 64


@pytest.mark.parametrize(
    ("code", "error"), [("ENOSPC", ResourceExhausted), ("EROFS", Unavailable), ("EIO", Unavailable)]
)
def test_what_a_disks_refusal_means(code, error):
    number = getattr(filesystem.errno, code)
    with pytest.raises(error) as raised, filesystem.disk_errors("writing the file"):
        raise OSError(number, os.strerror(number))
    assert raised.value.retry_after_seconds > 0
    assert "writing the file" in raised.value.message


def test_spool_is_read_while_it_grows(tmp_path):
    folder = SpoolFolder(tmp_path / "spool")
    folder.open()
    spool = folder.spool(ID, 1)
    spool.create()
    spool.append(b"12345678")
    with spool.open() as reader:
        assert reader.read() == b"12345678"
        spool.append(b"9abcdefg")
        assert reader.read() == b"9abcdefg"
        assert [block.shape for block in spool.blocks(2)] == [(2, 2)]
        spool.finish()
        (kept,) = folder.kept()
        assert (kept.generation_id, kept.attempt, kept.bytes) == (ID, 1, 16)
        assert kept.age_seconds < 60
        spool.remove()
        reader.seek(0)
        assert len(reader.read()) == 16
    with pytest.raises(NotFound):
        spool.open()


def test_spool_opens_even_while_it_is_renamed(tmp_path):
    folder = SpoolFolder(tmp_path)
    folder.open()
    failures = []

    def read(spool, stop):
        while not stop.is_set():
            try:
                spool.open().close()
            except NotFound as error:
                failures.append(error)

    for attempt in range(1, 60):
        spool, stop = folder.spool(ID, attempt), threading.Event()
        spool.create()
        reader = threading.Thread(target=read, args=(spool, stop))
        reader.start()
        try:
            spool.finish()
        finally:
            stop.set()
            reader.join()
    assert not failures


def test_spool_folder_sweeps_what_broke_off_and_ignores_strangers(tmp_path):
    folder = SpoolFolder(tmp_path)
    (tmp_path / f"{ID}.1.pcm.part").write_bytes(b"half")
    (tmp_path / "notes.pcm").write_bytes(b"whose?")
    folder.open()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.pcm"]
    assert list(folder.kept()) == []


@pytest.fixture
def ramp(tmp_path):
    """1000 frames that rise from -1 to 1 on the left and are silent on the right."""
    path = tmp_path / "ramp.wav"
    samples = np.stack([np.linspace(-1, 1, 1000), np.zeros(1000)], axis=1)
    soundfile.write(path, samples, 32_000, subtype="PCM_24")
    return path, samples


def test_outline_has_the_extremes_of_all_channels_as_one(ramp):
    path, samples = ramp
    outline = waveform(path, 10)
    assert (outline.sample_rate_hz, outline.samples_per_pixel) == (32_000, 100)
    mono = samples.mean(axis=1).reshape(10, 100)
    expected = np.rint(np.stack([mono.min(axis=1), mono.max(axis=1)], axis=1) * 128).ravel()
    np.testing.assert_allclose(outline.data, expected, atol=1)


@pytest.mark.parametrize(("points", "length"), [(1, 1), (3, 3), (999, 500), (1000, 1000), (10_000, 1000)])
def test_outline_has_at_most_the_points_asked_for(ramp, points, length, monkeypatch):
    monkeypatch.setattr("export_service.library.waveform.BLOCK_FRAMES", 64)
    outline = waveform(ramp[0], points)
    assert len(outline.data) == 2 * length
    assert min(outline.data) >= -128
    assert max(outline.data) <= 127
