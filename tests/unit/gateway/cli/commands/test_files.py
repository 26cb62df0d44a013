"""The output of `dgx-music files`."""

from __future__ import annotations

import uuid

from dgx_music.export.v1.export_pb2 import FILE_CONDITION_UNREADABLE, VerifyFilesResponse
from gateway.cli.commands import files


def test_bad_file_is_described_with_render_and_problem() -> None:
    generation_id, render_id = str(uuid.uuid4()), str(uuid.uuid4())
    response = VerifyFilesResponse(
        generation_id=generation_id,
        render_id=render_id,
        condition=FILE_CONDITION_UNREADABLE,
        file_path="renders/a.mp3",
        problem="Input/output error",
    )
    assert files._format_bad_file(response) == (
        f"unreadable: render {render_id} of generation {generation_id} (renders/a.mp3, Input/output error)"
    )
