"""The spool: samples as generated, appended to a file as they arrive and read by listeners at their own pace.

The file is named `<generation id>.<attempt>.pcm.part` while the export runs, and `.pcm` once the mastered file is in
the library.
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
from export_service.library.filesystem import make_private_folder
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.file_modes import open_private

SPOOL = "spool"
"""The folder of all spools in a data directory."""
BYTES_PER_SAMPLE = 4
"""float32."""
FINISHED_NAME = re.compile(r"([0-9a-f-]{36})\.(\d{1,10})\.pcm")
LIVE_AUDIO_EXPIRED = "it is no longer kept; request the finished file with level FINAL"


@dataclass(frozen=True)
class FinishedSpool:
    """The spool of a completed export, left by an earlier process."""

    generation_id: str
    attempt: int
    bytes: int
    age_seconds: float


class SpoolFolder:
    """The folder of all spools, owned by a single process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Creates the folder and removes the spools of exports that did not complete."""
        make_private_folder(self._folder)
        for part in self._folder.glob("*.part"):
            part.unlink()

    def iter_finished(self) -> Iterator[FinishedSpool]:
        """Yields the spools of completed exports."""
        for path in self._folder.glob("*.pcm"):
            if name := FINISHED_NAME.fullmatch(path.name):
                status = path.stat()
                age = max(0.0, time.time() - status.st_mtime)
                yield FinishedSpool(name[1], int(name[2]), status.st_size, age)

    def spool(self, generation_id: str, attempt: int) -> Spool:
        """Returns the spool of an attempt, whether or not its file exists."""
        return Spool(self._folder / f"{generation_id}.{attempt}.pcm")


class Spool:
    """The file with one attempt's samples. Methods block: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file: BinaryIO | None = None

    def create(self) -> None:
        """Creates the file for appending, and removes a finished one of the same attempt."""
        self._path.unlink(missing_ok=True)
        self._file = open(self._part, "xb", buffering=0, opener=open_private)  # noqa: SIM115

    def append(self, pcm: bytes) -> None:
        """Appends samples, which readers see at once. Raises OSError."""
        assert self._file is not None
        view = memoryview(pcm)
        while view:
            view = view[self._file.write(view) :]

    def blocks(self, channels: int) -> Iterator[Samples]:
        """Yields all samples in blocks of [frames, channels]."""
        with self._part.open("rb", buffering=0) as file:
            while pcm := file.read(BLOCK_FRAMES * channels * BYTES_PER_SAMPLE):
                yield np.frombuffer(pcm, dtype="<f4").reshape(-1, channels)

    def finish(self) -> None:
        """Renames the file so that the next process keeps it. Its age counts from now."""
        self._close()
        os.utime(self._part)
        self._part.rename(self._path)

    def remove(self) -> None:
        """Removes the file, finished or not. Readers that have it open can read it to its end."""
        self._close()
        self._part.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def open(self) -> BinaryIO:
        """Opens the file for reading. Raises NotFound if it no longer exists."""
        # Tried in the order of the rename, so that a rename between the two attempts can't hide the file.
        for path in (self._part, self._path):
            try:
                return path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
        raise NotFound("live audio", self._path.name, LIVE_AUDIO_EXPIRED)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
