"""Saving audio files: whole under their name, or not at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

from dgx_music.export.v1.export_pb2 import DownloadRequest
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.runner import STREAM_SECONDS, Session


def require_writable(paths: Iterable[Path], option: str = "--output", *, overwrite: bool) -> None:
    """Raises CommandError where one can't be: there is no folder for it, it is no file, or `overwrite` would have to
    be."""
    for path in paths:
        if not path.parent.is_dir():
            raise CommandError(f"{option}: there is no folder {path.parent}", BAD_INPUT)
        if path.exists() and not path.is_file():
            # A rename would put the file in a device's place, for everybody.
            raise CommandError(f"{option}: {path} is no file", BAD_INPUT)
        if path.exists() and not overwrite:
            raise CommandError(f"{option}: {path} is there already; --force overwrites it", BAD_INPUT)


async def download(
    session: Session, generation_id: str, path: Path | None, *, render_id: str = "", overwrite: bool = True
) -> Path:
    """Saves a generation's file, or a render of it, at `path`, or under its own name in the current folder; gives
    where.

    Raises CommandError where it can't be written or did not come whole.
    """
    request = DownloadRequest(generation_id=generation_id, render_id=render_id)
    call = session.music.Download(request, timeout=STREAM_SECONDS)
    part: Path | None = None
    try:
        first = await anext(aiter(call))
        path = path or Path(Path(first.file_name).name)
        require_writable([path], overwrite=overwrite)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        with open(part, "wb") as file:  # noqa: ASYNC230  # Its writes go to a thread.
            await asyncio.to_thread(file.write, first.data)
            async for response in call:
                await asyncio.to_thread(file.write, response.data)
            size = file.tell()
        if size != first.file_size_bytes:
            raise CommandError(f"{size} of {first.file_size_bytes} bytes came: try again")
        os.replace(part, path)
    except OSError as error:
        raise CommandError(f"can't write {path}: {error.strerror or error}") from error
    finally:
        call.cancel()
        if part is not None:
            part.unlink(missing_ok=True)
    return path.absolute()
