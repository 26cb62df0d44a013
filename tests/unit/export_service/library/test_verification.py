"""Verification of files that the disk can't read."""

from __future__ import annotations

from export_service.library.store import Library
from export_service.library.verification import FileCondition, verify
from tests.support.failpoints import armed

ID, RENDER = "123e4567-e89b-12d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174001"


def test_verify_reports_error_message_of_unreadable_file(tmp_path):
    library = Library(tmp_path)
    library.open()
    (tmp_path / "renders" / ID).mkdir()
    (tmp_path / "renders" / ID / f"{RENDER}.mp3").write_bytes(b"mp3")
    with armed("export.file_read:EIO"):
        missing, unreadable = verify(library, ID, "", presence_only=False)
    assert missing.condition is FileCondition.MISSING
    assert (unreadable.render_id, unreadable.condition) == (RENDER, FileCondition.UNREADABLE)
    assert unreadable.problem == "Input/output error"
