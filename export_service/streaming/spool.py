"""The spool: samples as generated, appended while they arrive, read by listeners at their own pace.

`<generation id>.<attempt>.pcm.part` while it is being made, `.pcm` once all have arrived and the file has landed.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dgx_music.errors import NotFound
from export_service.dsp.arrays import Samples
from export_service.library.filesystem import make_folder
from service_runtime.audio.block_size import BLOCK_FRAMES

BYTES_PER_SAMPLE = 4
"""float32."""
KEPT_NAME = re.compile(r"([0-9a-f-]{36})\.(\d{1,10})\.pcm")


@dataclass(frozen=True)
class KeptSpool:
    """A finished spool that an earlier process left."""

    generation_id: str
    attempt: int
    bytes: int
    age_seconds: float


class SpoolFolder:
    """Where spools lie. One process at a time owns it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Makes the folder and removes what broke off."""
        make_folder(self._folder)
        for part in self._folder.glob("*.part"):
            part.unlink()

    def kept(self) -> Iterator[KeptSpool]:
        """The finished spools."""
        for path in self._folder.glob("*.pcm"):
            if name := KEPT_NAME.fullmatch(path.name):
                status = path.stat()
                age = max(0.0, time.time() - status.st_mtime)
                yield KeptSpool(name[1], int(name[2]), status.st_size, age)

    def spool(self, generation_id: str, attempt: int) -> Spool:
        """The spool of an attempt, whether it is there or not."""
        return Spool(self._folder / f"{generation_id}.{attempt}.pcm")


class Spool:
    """The samples of one attempt on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file: BinaryIO | None = None

    def create(self) -> None:
        """Opens it for appending, in place of a finished one of the same attempt."""
        self._path.unlink(missing_ok=True)
        self._file = self._part.open("xb", buffering=0)

    def append(self, pcm: bytes) -> None:
        """Adds to the end; a reader sees it at once. Raises OSError."""
        assert self._file is not None
        view = memoryview(pcm)
        while view:
            view = view[self._file.write(view) :]

    def blocks(self, channels: int) -> Iterator[Samples]:
        """All samples, [frames, channels] at a time."""
        with self._part.open("rb", buffering=0) as file:
            while pcm := file.read(BLOCK_FRAMES * channels * BYTES_PER_SAMPLE):
                yield np.frombuffer(pcm, dtype="<f4").reshape(-1, channels)

    def finish(self) -> None:
        """Gives it the name that outlives this process; its age counts from now."""
        self._close()
        os.utime(self._part)
        self._part.rename(self._path)

    def remove(self) -> None:
        """Removes it, whatever state it is in. Those who have it open read on."""
        self._close()
        self._part.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def open(self) -> BinaryIO:
        """Opens it for reading; raises NotFound if it is no longer there."""
        # Tried in the order in which it is renamed, so that it can't slip through between the two.
        for path in (self._part, self._path):
            try:
                return path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
        raise NotFound("live audio", self._path.name, "it is no longer kept; listen to the file, level FINAL")

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
