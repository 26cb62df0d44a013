"""The spool: samples as generated, appended to a file as they arrive and read by listeners at their own pace.

The file is named `<generation id>.<attempt>.pcm.part` until the mastered file is in the library, and then `.pcm`. Once
all samples have arrived, `<generation id>.<attempt>.json` describes them, so that a failed export can be resumed, by
this process or the next one; likewise the samples of an attempt that was suspended. It is removed when the mastered
file is in the library, unless that was converted.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from pydantic import TypeAdapter

from dgx_music.errors import NotFound
from export_service.dsp.arrays import Samples
from export_service.library.filesystem import make_private_folder
from export_service.library.regular_files import is_regular_file, remove_leftover
from service_runtime.audio.block_size import BLOCK_FRAMES
from service_runtime.file_modes import open_private
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

BYTES_PER_SAMPLE = 4
"""float32."""
STORED_NAME = re.compile(r"([0-9a-f-]{36})\.(\d{1,10})\.pcm(\.part)?")
LIVE_AUDIO_EXPIRED = "it is no longer kept; request the finished file with level FINAL"


@dataclass(frozen=True)
class ReceivedAudio:
    """Describes samples that have arrived. Its JSON lies beside the spool, so the field names are part of a format on
    disk.
    """

    sample_rate_hz: int
    channels: int
    frames: int
    pcm_sha256: str
    header: Mapping[str, Any]
    """The header with which the samples were sent, as JSON. The domain does not read it."""
    is_complete: bool = True
    """Whether these are all samples. If not, the attempt was suspended, and another one can append the rest."""

    @property
    def size_bytes(self) -> int:
        """Size of the samples."""
        return self.frames * self.channels * BYTES_PER_SAMPLE


RECEIVED_AUDIO_JSON = TypeAdapter(ReceivedAudio)


@dataclass(frozen=True)
class StoredSpool:
    """A spool that an earlier process left."""

    generation_id: str
    attempt: int
    size_bytes: int
    age_seconds: float
    received: ReceivedAudio | None
    """None if it is not described: the mastered file is in the library, and has the same sample rate and channels."""
    is_finished: bool
    """Whether the mastered file is known to be in the library."""


class SpoolFolder:
    """The folder of all spools, owned by a single process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Creates the folder and removes incomplete spools, and descriptions without a spool."""
        make_private_folder(self._folder)
        for part in self._folder.glob("*.part"):
            try:
                if not self._is_complete(part):
                    remove_leftover(part)
            except OSError as error:
                log.warning("spool_not_restored", file=part.name, error=str(error))
        for description in self._folder.glob("*.json"):
            samples = description.with_suffix(".pcm"), description.with_suffix(".pcm.part")
            if not any(map(is_regular_file, samples)):
                remove_leftover(description)

    def _is_complete(self, part: Path) -> bool:
        name = STORED_NAME.fullmatch(part.name)
        received = self.spool(name[1], int(name[2])).read_received() if name else None
        if received is None:
            return False
        size = part.lstat().st_size
        # An attempt that went on from suspended samples may have appended to them before it ended.
        return size == received.size_bytes or (size > received.size_bytes and not received.is_complete)

    def iter_stored(self) -> Iterator[StoredSpool]:
        """Yields the spools whose samples have all arrived, except those that can't be read."""
        for path in self._folder.iterdir():
            if (name := STORED_NAME.fullmatch(path.name)) and is_regular_file(path):
                status = path.stat()
                age = max(0.0, time.time() - status.st_mtime)
                try:
                    received = self.spool(name[1], int(name[2])).read_received()
                except OSError as error:
                    log.warning("spool_not_restored", file=path.name, error=str(error))
                    continue
                yield StoredSpool(name[1], int(name[2]), status.st_size, age, received, is_finished=not name[3])

    def spool(self, generation_id: str, attempt: int) -> Spool:
        """Returns the spool of an attempt, whether or not its file exists."""
        return Spool(self._folder / f"{generation_id}.{attempt}.pcm")


class Spool:
    """The file with one attempt's samples. Methods block: call them in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._description = path.with_suffix(".json")
        self._file: BinaryIO | None = None

    def create(self) -> None:
        """Creates the file for appending, and removes a finished one of the same attempt."""
        self._path.unlink(missing_ok=True)
        self._file = open(self._part, "xb", buffering=0, opener=open_private)  # noqa: SIM115

    def reopen(self, size_bytes: int) -> None:
        """Opens the file of a suspended attempt for appending after its first `size_bytes`. Raises NotFound if it no
        longer exists."""
        try:
            self._file = open(self._part, "ab", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            raise NotFound("live audio", self._path.name, LIVE_AUDIO_EXPIRED) from None
        self._file.truncate(size_bytes)

    def append(self, pcm: bytes) -> None:
        """Appends samples, which readers see at once. Raises OSError."""
        assert self._file is not None
        view = memoryview(pcm)
        while view:
            view = view[self._file.write(view) :]

    def describe(self, received: ReceivedAudio) -> None:
        """Records which samples have arrived. They are not synced: whoever resumes checks their hash."""
        part = self._description.with_name(self._description.name + ".part")
        try:
            part.unlink(missing_ok=True)
            with open(part, "xb", opener=open_private) as file:
                file.write(RECEIVED_AUDIO_JSON.dump_json(received))
            part.rename(self._description)
        except OSError:
            remove_leftover(part)
            raise

    def read_received(self) -> ReceivedAudio | None:
        """Reads what `describe` recorded. Returns None if there is nothing, or nothing that can be read."""
        try:
            return RECEIVED_AUDIO_JSON.validate_json(self._description.read_bytes())
        except (FileNotFoundError, ValueError):
            return None

    def size_bytes(self) -> int:
        """Returns the size of the file; 0 if it no longer exists."""
        try:
            with self.open() as file:
                return os.fstat(file.fileno()).st_size
        except NotFound:
            return 0

    def blocks(self, channels: int) -> Iterator[Samples]:
        """Yields all samples in blocks of [frames, channels], each valid only until the next one is requested. Raises
        NotFound if the file no longer exists.
        """
        block = np.empty((BLOCK_FRAMES, channels), dtype="<f4")
        with self.open() as file:
            while size := file.readinto(block.data):
                yield block[: size // block.strides[0]]

    def finish(self, *, keep_description: bool) -> None:
        """Records that the mastered file is in the library. The spool's age counts from now.

        The description must be kept if the file has another sample rate or other channels: the next process could not
        tell otherwise what the samples are.
        """
        self.close()
        if self._part.exists():
            self._part.rename(self._path)
        os.utime(self._path)
        if not keep_description:
            self._description.unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes the file, finished or not. Readers that have it open can read it to its end."""
        self.close()
        for path in (self._description, self._part, self._path):
            path.unlink(missing_ok=True)

    def open(self) -> FileIO:
        """Opens the file for reading. Raises NotFound if it no longer exists."""
        # Tried in the order of the rename, so that a rename between the two attempts can't hide the file.
        for path in (self._part, self._path):
            try:
                return path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
        raise NotFound("live audio", self._path.name, LIVE_AUDIO_EXPIRED)

    def close(self) -> None:
        """Closes the file for appending."""
        if self._file is not None:
            self._file.close()
            self._file = None
