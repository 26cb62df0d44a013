"""The spool on a real disk."""

from __future__ import annotations

import threading

import pytest

from dgx_music.errors import NotFound
from export_service.streaming.spool import SpoolFolder

ID = "123e4567-e89b-12d3-a456-426614174000"


def test_spool_is_readable_while_it_grows(tmp_path):
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
        spool.finish(keep_description=False)
        (stored,) = folder.iter_stored()
        assert (stored.generation_id, stored.attempt, stored.size_bytes, stored.received) == (ID, 1, 16, None)
        assert stored.age_seconds < 60
        spool.remove()
        reader.seek(0)
        assert len(reader.read()) == 16
    with pytest.raises(NotFound):
        spool.open()


def test_open_during_finish_finds_spool(tmp_path):
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
            spool.finish(keep_description=False)
        finally:
            stop.set()
            reader.join()
    assert not failures


def test_open_folder_removes_incomplete_spools_and_ignores_other_files(tmp_path):
    folder = SpoolFolder(tmp_path)
    (tmp_path / f"{ID}.1.pcm.part").write_bytes(b"half")
    (tmp_path / "notes.pcm").write_bytes(b"not a spool")
    folder.open()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.pcm"]
    assert list(folder.iter_stored()) == []
