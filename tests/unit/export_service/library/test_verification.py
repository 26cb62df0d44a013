"""Verification of files that the disk can't read."""

from __future__ import annotations

from export_service.library.store import Library
from export_service.library.verification import Condition, verify

ID, RENDER = "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001"


def test_what_the_disk_refuses_to_read_is_told_in_its_words(tmp_path):
    library = Library(tmp_path)
    library.open()
    (tmp_path / "renders" / ID / f"{RENDER}.mp3").mkdir(parents=True)
    missing, refused = verify(library, ID, "", presence_only=False)
    assert missing.condition is Condition.MISSING
    assert (refused.render_id, refused.condition) == (RENDER, Condition.UNREADABLE)
    assert refused.problem == "Is a directory"
