"""Read and delete locks on files of the library."""

from __future__ import annotations

import pytest

from dgx_music.errors import FailedPrecondition, NotFound
from export_service.library.file_locks import Usage

ID, RENDER = "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001"


def test_who_reads_is_not_disturbed():
    usage = Usage()
    with usage.reading(ID, RENDER), usage.reading(ID, RENDER):
        for render_id in (RENDER, ""):
            with pytest.raises(FailedPrecondition, match="is being read"), usage.taking_away(ID, render_id):
                pass
        with usage.taking_away(ID, "another"), usage.taking_away("another", ""):
            pass
    with usage.taking_away(ID, RENDER):
        pass
    with usage.reading(ID), usage.taking_away(ID, RENDER):
        pass


def test_who_comes_while_it_is_taken_away_finds_nothing():
    usage = Usage()
    with usage.taking_away(ID):
        for render_id in ("", RENDER):
            with pytest.raises(NotFound, match="is being deleted"), usage.reading(ID, render_id):
                pass
    with usage.taking_away(ID, RENDER):
        with usage.reading(ID):
            pass
        with pytest.raises(NotFound), usage.reading(ID, RENDER):
            pass
    with usage.reading(ID, RENDER):
        pass
