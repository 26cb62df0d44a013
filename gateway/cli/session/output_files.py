"""Saves audio files: complete under their name, or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from dgx_music.export.v1.export_pb2 import DownloadRequest
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.file_endings import require_ending_of_file
from gateway.cli.session.runner import Session
from gateway.timeouts import STREAM_TIMEOUT_SECONDS


def require_writable(paths: Iterable[Path], option: str = "--output", *, overwrite: bool) -> None:
    """Raises CommandError if the folder of a path does not exist, the path is not a regular file, or it exists and
    `overwrite` is false."""
    for path in paths:
        if not path.parent.is_dir():
            raise CommandError(f"{option}: the folder {path.parent} does not exist", BAD_INPUT)
        if path.exists() and not path.is_file():
            # A rename would replace a device such as /dev/null for everybody.
            raise CommandError(f"{option}: {path} is not a regular file", BAD_INPUT)
        if path.exists() and not overwrite:
            raise CommandError(f"{option}: {path} already exists; use --force to overwrite it", BAD_INPUT)


async def download(
    session: Session, generation_id: str, path: Path | None, *, render_id: str = "", overwrite: bool = True
) -> Path:
    """Saves the file of a generation, or a render of it, at `path` or under its own name in the current folder.

    Returns the path. Raises CommandError if the file cannot be written, is incomplete, or is of another format than the
    ending of `path` says.
    """
    request = DownloadRequest(generation_id=generation_id, render_id=render_id)
    call = session.music.Download(request, timeout=STREAM_TIMEOUT_SECONDS)
    part: Path | None = None
    try:
        first = await anext(aiter(call))
        path = path or Path(Path(first.file_name).name)
        require_ending_of_file(path, first.file_name, generation_id)
        require_writable([path], overwrite=overwrite)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with open(part, "wb") as file:  # noqa: ASYNC230  # Its writes go to a thread.
            await asyncio.to_thread(file.write, first.data)
            async for response in call:
                await asyncio.to_thread(file.write, response.data)
            size = file.tell()
        if size != first.file_size_bytes:
            raise CommandError(f"received only {size} of {first.file_size_bytes} bytes; try again")
        os.replace(part, path)
    except OSError as error:
        raise CommandError(f"failed to write {path}: {error.strerror or error}") from error
    finally:
        call.cancel()
        if part is not None:
            part.unlink(missing_ok=True)
    return path.absolute()
