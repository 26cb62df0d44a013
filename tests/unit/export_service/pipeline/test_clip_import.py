"""An import that breaks off while its clip lands."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest
import soundfile

from export_service.library.store import CLIPS, Library
from export_service.pipeline.clip_import import ClipImport, ClipLimits


class HeldLibrary(Library):
    """Stops before or after a clip has landed, until it is let go on."""

    def __init__(self, data_dir, moment):
        super().__init__(data_dir, CLIPS)
        self._moment = moment
        self.reached, self.go_on = threading.Event(), threading.Event()

    def land(self, part, generation_id, extension, permit):
        if self._moment == "before":
            self._hold()
        path = super().land(part, generation_id, extension, permit)
        if self._moment == "after":
            self._hold()
        return path

    def _hold(self):
        self.reached.set()
        assert self.go_on.wait(60)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_nobody_heard_its_id_so_nothing_is_left(tmp_path, moment):
    source = tmp_path / "source.wav"
    soundfile.write(source, np.zeros(8_000), 8_000)
    library = HeldLibrary(tmp_path / "data", moment)
    library.open()
    clip = ClipImport(library, ClipLimits(1 << 20, 10.0))
    await clip.write(source.read_bytes())
    landing = asyncio.create_task(clip.land())
    assert await asyncio.to_thread(library.reached.wait, 60)
    landing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await landing
    closing = asyncio.create_task(clip.close())
    await asyncio.sleep(0)  # It has begun.
    library.go_on.set()
    await closing
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == []
