"""Clip imports that are cancelled while the clip is being committed."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
import soundfile

from export_service.library.store import CLIPS, Library
from export_service.pipeline.clip_import import ClipImport, ClipLimits


class BlockedLibrary(Library):
    """Blocks before or after a commit until `proceed` is set."""

    def __init__(self, data_dir, moment):
        super().__init__(data_dir, CLIPS)
        self._moment = moment
        self.reached, self.proceed = threading.Event(), threading.Event()

    def commit(self, staged, generation_id, extension, check_permitted):
        if self._moment == "before":
            self._block()
        path = super().commit(staged, generation_id, extension, check_permitted)
        if self._moment == "after":
            self._block()
        return path

    def _block(self):
        self.reached.set()
        assert self.proceed.wait(60)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_close_of_cancelled_commit_removes_clip(tmp_path, moment):
    source = tmp_path / "source.wav"
    soundfile.write(source, np.zeros(8_000), 8_000)
    library = BlockedLibrary(tmp_path / "data", moment)
    library.open()
    clip_import = ClipImport(library, ClipLimits(1 << 20, 10.0))
    await clip_import.write(source.read_bytes())
    committing = asyncio.create_task(clip_import.commit())
    assert await asyncio.to_thread(library.reached.wait, 60)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    closing = asyncio.create_task(clip_import.close())
    await asyncio.sleep(0)  # Lets it start.
    library.proceed.set()
    await closing
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []
