"""A clip: audio that somebody uploads, kept beside what was made here."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dgx_music.errors import Aborted, InvalidArgument
from export_service.dsp.arrays import Samples
from export_service.formats.reader import SOURCE_FILE_REQUIREMENT, SourceFile, open_source_file
from export_service.formats.writer import AudioFile
from export_service.library.filesystem import disk_errors
from export_service.library.store import Library
from service_runtime.audio.output_options import FileFormat
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class ClipLimits:
    """How much one upload may bring."""

    bytes: int
    """Of the file as uploaded."""
    seconds: float


@dataclass(frozen=True)
class Clip:
    """A clip in the library."""

    clip_id: str
    sample_rate_hz: int
    channels: int
    frames: int
    pcm_sha256: str
    """Of its samples as little-endian float32."""


class ClipImport:
    """Takes in the bytes of one file.

    All that blocks runs in order on a thread of its own, so that nothing is cleaned up while it is in use.
    """

    def __init__(self, library: Library, limits: ClipLimits) -> None:
        self._library, self._limits = library, limits
        self._clip_id = str(uuid.uuid4())
        self._part = library.part(self._clip_id, 0)
        self._upload = self._part.with_name(f"{self._clip_id}.upload.part")
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="clip")
        self._bytes = 0
        self._landed = False
        self._told = False
        self._closed = False

    async def write(self, data: bytes) -> None:
        """Takes in the file's next bytes. Raises InvalidArgument beyond the limit, and what the disk has to say."""
        self._bytes += len(data)
        if self._bytes > self._limits.bytes:
            raise InvalidArgument(
                "data", f"must be at most {self._limits.bytes} bytes in all; send a shorter clip, or FLAC"
            )
        await self._work(partial(self._append, data))

    async def land(self) -> Clip:
        """The clip, in the library. Raises InvalidArgument where the file is not one that we take."""
        if not self._bytes:
            raise InvalidArgument("data", f"{SOURCE_FILE_REQUIREMENT}; it is empty")
        clip = await self._work(self._land)
        self._told = True
        return clip

    async def close(self) -> None:
        """Ends the import; unless the clip's id was handed out, nothing is left of it."""
        self._closed = True
        try:
            await self._work(self._clean_up)
        except OSError as error:
            log.warning("left behind until the next start", error=str(error))
        self._worker.shutdown(wait=False)

    async def _work(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    # What follows runs on the worker.

    def _append(self, data: bytes) -> None:
        with disk_errors("taking in the clip"), self._upload.open("ab") as file:
            file.write(data)

    def _land(self) -> Clip:
        sha256 = hashlib.sha256()
        with disk_errors("writing the clip"):
            with open_source_file(self._upload, self._limits.seconds) as source:
                audio = AudioFile(
                    FileFormat.WAV_FLOAT, source.sample_rate_hz, source.channels, source.frames, tags=None, seed=0
                )
                audio.write(self._part, self._blocks(source, sha256.update), gain_db=0.0)
            self._library.land(self._part, self._clip_id, audio.codec.extension, self._require_open)
        self._landed = True
        return Clip(self._clip_id, source.sample_rate_hz, source.channels, source.frames, sha256.hexdigest())

    def _blocks(self, source: SourceFile, hash_pcm: Callable[[bytes], None]) -> Iterator[Samples]:
        for block in source.blocks():
            self._require_open()
            hash_pcm(block.astype("<f4", copy=False).tobytes())
            yield block

    def _require_open(self) -> None:
        if self._closed:
            raise Aborted("the import of a clip broke off", reason="IMPORT_BROKE_OFF")

    def _clean_up(self) -> None:
        self._upload.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)
        if self._landed and not self._told:
            self._library.delete(self._clip_id)
