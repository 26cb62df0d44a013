"""Read and delete locks on files of the library."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition, NotFound
from export_service.library.file_locks import FileLocks

ID, RENDER = "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001"


def test_delete_lock_fails_while_file_is_read():
    locks = FileLocks()
    with locks.read_lock(ID, RENDER), locks.read_lock(ID, RENDER):
        for render_id in (RENDER, ""):
            with pytest.raises(FailedPrecondition, match="is being read"), locks.delete_lock(ID, render_id):
                pass
        with locks.delete_lock(ID, "another"), locks.delete_lock("another", ""):
            pass
    with locks.delete_lock(ID, RENDER):
        pass
    with locks.read_lock(ID), locks.delete_lock(ID, RENDER):
        pass


def test_read_lock_fails_while_file_is_deleted():
    locks = FileLocks()
    with locks.delete_lock(ID):
        for render_id in ("", RENDER):
            with pytest.raises(NotFound, match="is being deleted"), locks.read_lock(ID, render_id):
                pass
    with locks.delete_lock(ID, RENDER):
        with locks.read_lock(ID):
            pass
        with pytest.raises(NotFound), locks.read_lock(ID, RENDER):
            pass
    with locks.read_lock(ID, RENDER):
        pass
