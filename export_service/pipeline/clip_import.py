"""Imports clips: audio that a user uploads, kept in the library beside the generated files."""

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
from export_service.decoding.source_file import SOURCE_FILE_REQUIREMENT, SourceFile, open_source_file
from export_service.dsp.arrays import Samples
from export_service.formats.writer import AudioFile
from export_service.library.audio_library import AudioLibrary
from export_service.library.filesystem import translate_disk_errors
from export_service.pipeline.clip_measurement import ClipMeasurement, ClipMeter
from service_runtime.audio.output_options import FileFormat
from service_runtime.observability.logging import get_logger

log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class ClipLimits:
    """Limits of a single upload."""

    max_bytes: int
    """Of the uploaded file."""
    max_seconds: float


@dataclass(frozen=True)
class Clip:
    """A clip in the library."""

    clip_id: str
    sample_rate_hz: int
    channels: int
    frames: int
    pcm_sha256: str
    """SHA-256 of its samples as little-endian float32."""
    source_format: str
    """What the uploaded file was, e.g. "AIFF, 24-bit PCM"."""
    source_channels: int
    measurement: ClipMeasurement


class ClipImport:
    """Receives the bytes of one file and turns them into a clip.

    All blocking work runs in order on a thread of its own, so that no file is removed while it is in use.
    """

    def __init__(self, library: AudioLibrary, limits: ClipLimits) -> None:
        self._library, self._limits = library, limits
        self._clip_id = str(uuid.uuid4())
        self._staged = library.staging_path(self._clip_id, 0)
        self._upload = self._staged.with_name(f"{self._clip_id}.upload.part")
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="clip")
        self._received_bytes = 0
        self._is_committed = False
        self._is_returned = False
        """The caller has received the clip, and with it the id."""
        self._is_closed = False

    async def write(self, data: bytes) -> None:
        """Appends the file's next bytes. Raises InvalidArgument if it gets too large, and errors of the disk."""
        self._received_bytes += len(data)
        if self._received_bytes > self._limits.max_bytes:
            raise InvalidArgument(
                "data",
                f"must be at most {self._limits.max_bytes} bytes in total; send a shorter or a compressed file",
            )
        await self._run_on_worker(partial(self._append, data))

    async def commit(self) -> Clip:
        """Adds the clip to the library. Raises InvalidArgument if the file is not acceptable as a clip."""
        if not self._received_bytes:
            raise InvalidArgument("data", f"{SOURCE_FILE_REQUIREMENT}; it is empty")
        clip = await self._run_on_worker(self._convert_and_commit)
        self._is_returned = True
        return clip

    async def close(self) -> None:
        """Ends the import. Unless `commit` has returned, all of its files are removed."""
        self._is_closed = True
        try:
            await self._run_on_worker(self._clean_up)
        except OSError as error:
            # The next start of the service removes them.
            log.warning("cleanup_failed", clip_id=self._clip_id, error=str(error))
        self._worker.shutdown(wait=False)

    async def _run_on_worker(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    # The methods below run on the worker thread.

    def _append(self, data: bytes) -> None:
        with translate_disk_errors("receiving the clip"), self._upload.open("ab") as file:
            file.write(data)

    def _convert_and_commit(self) -> Clip:
        sha256 = hashlib.sha256()
        with translate_disk_errors("writing the clip"):
            with open_source_file(self._upload, self._limits.max_seconds) as source:
                meter = ClipMeter(source.sample_rate_hz, source.channels)
                audio = AudioFile(
                    FileFormat.WAV_FLOAT, source.sample_rate_hz, source.channels, source.max_frames, tags=None, seed=0
                )
                audio.write(self._staged, self._blocks(source, meter, sha256.update), gain_db=0.0)
            self._library.commit(self._staged, self._clip_id, audio.codec.extension, self._raise_if_closed)
        self._is_committed = True
        return Clip(
            self._clip_id,
            source.sample_rate_hz,
            source.channels,
            source.frames_read,
            sha256.hexdigest(),
            source.description,
            source.source_channels,
            meter.finish(),
        )

    def _blocks(self, source: SourceFile, meter: ClipMeter, hash_pcm: Callable[[bytes], None]) -> Iterator[Samples]:
        for block in source.blocks():
            self._raise_if_closed()
            hash_pcm(block.astype("<f4", copy=False).tobytes())
            meter.feed(block)
            yield block

    def _raise_if_closed(self) -> None:
        if self._is_closed:
            raise Aborted("the import of the clip was aborted", reason="IMPORT_BROKE_OFF")

    def _clean_up(self) -> None:
        self._upload.unlink(missing_ok=True)
        self._staged.unlink(missing_ok=True)
        if self._is_committed and not self._is_returned:
            self._library.delete(self._clip_id)
