"""Fetches finished files: whole and with the hash that the server recorded, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dgx_music.audio.v1.audio_pb2 import FILE_FORMAT_WAV_PCM_24, OutputOptions
from dgx_music.client.connection import Connection
from dgx_music.client.generation_options import EXTENSIONS, FORMATS, FileOptions, build_output
from dgx_music.client.library_names import check_library_name
from dgx_music.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound, ServiceError
from dgx_music.export.v1.export_pb2 import DownloadRequest, RenderRequest, RenderResponse
from dgx_music.storage.v1.storage_pb2 import GENERATION_STATE_COMPLETED, Generation, GetGenerationRequest

FILE_ATTEMPTS = 2
"""Downloads of a file that changes meanwhile because its tags are edited."""
RENDER_TIMEOUT_SECONDS = 3600.0
"""An hour of audio takes minutes to encode, and other renders may be before it."""
MANIFEST_EXTENSION = ".c2pa"


@dataclass(frozen=True, slots=True)
class FileRequest:
    """A file of the server's library."""

    id: str
    """UUID of a generation or a clip."""
    render_id: str = ""
    """UUID of a render of the generation; empty for the finished file or the clip."""
    output: OutputOptions | None = None
    """The options of a render that is made if there is none yet."""


@dataclass(frozen=True, slots=True)
class _StoredFile:
    request: DownloadRequest
    sha256: str
    """In lower-case hex; empty if none is recorded, as for clips."""
    has_manifest: bool


async def save_file(connection: Connection, request: FileRequest, path: str | os.PathLike[str]) -> Path:
    """Saves the file as `path`, or under its own name in the folder `path`. Returns where it is.

    It appears under its name when it is complete, and replaces a file that was there. A signed manifest that the server
    keeps beside it is saved beside it. Raises InvalidArgument if the folder does not exist or `path` is a device,
    DataLoss if the file is not the one that was recorded, and OSError if it can't be written.
    """
    target = Path(os.path.expanduser(path))
    is_folder = await asyncio.to_thread(target.is_dir)
    folder = target if is_folder else target.parent
    if not await asyncio.to_thread(folder.is_dir):
        raise InvalidArgument("path", f"the folder {folder} does not exist; create it first")
    if not is_folder and target.exists() and not target.is_file():
        # A rename would replace a device such as /dev/null for everybody.
        raise InvalidArgument("path", f"{target} is not a regular file; give the path of one")
    part = folder / f".{secrets.token_hex(8)}.part"
    try:
        with await asyncio.to_thread(open, part, "wb") as file:
            name, stored = await _fetch(connection, request, file)
        saved = folder / check_library_name(name) if is_folder else target
        await asyncio.to_thread(os.replace, part, saved)
        if stored.has_manifest:
            with await asyncio.to_thread(open, part, "wb") as file:
                await _download(connection, _manifest_of(stored), file)
            await asyncio.to_thread(os.replace, part, saved.with_suffix(MANIFEST_EXTENSION))
    finally:
        part.unlink(missing_ok=True)
    return saved


async def read_file(connection: Connection, request: FileRequest, file: BinaryIO) -> None:
    """Writes the file into `file`, which is empty. Raises DataLoss if it is not the one that was recorded."""
    await _fetch(connection, request, file)


async def choose_output(
    connection: Connection, generation_id: str, path: str | os.PathLike[str], options: FileOptions
) -> OutputOptions | None:
    """Returns how to render a generation for a file of this name; None for the finished file as it is.

    The extension names the format unless the options do. Raises InvalidArgument if it is the extension of no format.
    """
    extension = Path(path).suffix.lower()
    if not extension or options.get("format") is not None or os.path.isdir(os.path.expanduser(path)):
        return build_output(options)
    wanted = EXTENSIONS.get(extension)
    if wanted is None:
        listed = ", ".join(EXTENSIONS)
        raise InvalidArgument("path", f"{extension} is the extension of no format that can be written; use {listed}")
    own = await get_generation(connection, generation_id)
    if build_output(options) is None and _container(_format_name(own)) == _container(wanted):
        return None
    return build_output(FileOptions(**options) | FileOptions(format=wanted))


async def get_generation(connection: Connection, generation_id: str) -> Generation:
    """Returns the generation as it is now."""
    request = GetGenerationRequest(id=generation_id)
    return (await connection.call(connection.music.GetGeneration, request)).generation


async def render(connection: Connection, generation_id: str, output: OutputOptions | None) -> RenderResponse:
    """Renders a finished generation. The same options give the same render, so that it is safe to ask again."""
    request = RenderRequest(generation_id=generation_id, output=output)
    return await connection.call(connection.music.Render, request, is_repeatable=True, timeout=RENDER_TIMEOUT_SECONDS)


async def _fetch(connection: Connection, request: FileRequest, file: BinaryIO) -> tuple[str, _StoredFile]:
    """Returns the name that the file has on the server."""
    for _ in range(FILE_ATTEMPTS):
        stored = await _find(connection, request)
        name, sha256 = await _download(connection, stored.request, file)
        if stored.sha256 in ("", sha256):
            return name, stored
    raise DataLoss(
        f"the file of {request.id} does not have the SHA-256 that was recorded when it was written; "
        "`dgx-music files verify` on the server shows more",
        reason="FILE_CHANGED",
        metadata={"id": request.id},
    )


async def _find(connection: Connection, request: FileRequest) -> _StoredFile:
    if request.output is not None:
        made = await render(connection, request.id, request.output)
        file = DownloadRequest(generation_id=request.id, render_id=made.render_id)
        return _StoredFile(file, made.file.file_sha256, bool(made.file.manifest_path))
    file = DownloadRequest(generation_id=request.id, render_id=request.render_id)
    if request.render_id:
        return _StoredFile(file, "", False)
    try:
        generation = await get_generation(connection, request.id)
    except NotFound:
        return _StoredFile(file, "", False)  # A clip, of which no hash is recorded; or nothing, which Download reports.
    if generation.state != GENERATION_STATE_COMPLETED:
        raise FailedPrecondition(
            f"generation {request.id} has no finished file; wait() until it is completed", reason="NOT_COMPLETED"
        )
    facts = generation.metadata.fields
    sha256 = facts["file_sha256"].string_value if "file_sha256" in facts else ""
    return _StoredFile(file, sha256, "manifest_path" in facts)


async def _download(connection: Connection, request: DownloadRequest, file: BinaryIO) -> tuple[str, str]:
    """Replaces what is in `file` and returns the name and the SHA-256; goes on where it was after a lost connection."""
    await asyncio.to_thread(file.seek, 0)
    await asyncio.to_thread(file.truncate)
    reconnection, sha256 = connection.reconnection(), hashlib.sha256()
    name, size, position = "", 0, 0
    while True:
        rest = DownloadRequest(start_byte=position)
        rest.MergeFrom(request)
        try:
            async with aclosing(connection.stream(connection.music.Download, rest)) as parts:
                async for part in parts:
                    reconnection.responded()
                    name, size = part.file_name or name, part.file_size_bytes or size
                    await asyncio.to_thread(file.write, part.data)
                    sha256.update(part.data)
                    position += len(part.data)
        except ServiceError as error:
            await reconnection.wait(error)
        else:
            break
    if position != size:
        raise DataLoss(f"received {position} of {size} bytes of {name}; try again", reason="FILE_INCOMPLETE")
    return name, sha256.hexdigest()


def _manifest_of(stored: _StoredFile) -> DownloadRequest:
    request = DownloadRequest(manifest=True)
    request.MergeFrom(stored.request)
    return request


def _format_name(generation: Generation) -> str:
    number = generation.output.format or FILE_FORMAT_WAV_PCM_24
    return next(name for name, known in FORMATS.items() if known == number)


def _container(format_name: str) -> str:
    return format_name.partition("-")[0]
