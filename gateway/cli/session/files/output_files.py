"""Saves audio files: complete under their name, or not at all; or writes them to standard output."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from pathlib import Path

import grpc
import grpc.aio

from dgx_music.client.library_names import check_library_name
from dgx_music.errors import DataLoss
from dgx_music.export.v1.export_pb2 import DownloadRequest, DownloadResponse
from gateway.cli.session.command_errors import BAD_INPUT, CommandError
from gateway.cli.session.files.file_extensions import require_extension_of_file
from gateway.cli.session.runner import Session
from gateway.cli.session.standard_streams import STANDARD_OUTPUT, write_audio
from gateway.file_names import MANIFEST_EXTENSION
from gateway.file_replacement import replacing
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


def check_output(output: Path | None, *, overwrite: bool, as_json: bool = False, count: int = 1) -> None:
    """Raises CommandError if --output names a file that cannot be written, see `require_writable`, or is "-" where
    standard output cannot take one file alone."""
    if output is None:
        return
    if output != STANDARD_OUTPUT:
        require_writable([output], overwrite=overwrite)
    elif as_json:
        raise CommandError("--output -: cannot be combined with --json, which prints to standard output too", BAD_INPUT)
    elif count > 1:
        raise CommandError(
            "--output -: cannot be combined with --count: the files would run into each other", BAD_INPUT
        )
    elif sys.stdout.isatty():
        raise CommandError(
            "--output -: standard output is a terminal; send it to a program or a file: | ffplay -", BAD_INPUT
        )


async def download(
    session: Session, generation_id: str, path: Path | None, *, render_id: str = "", overwrite: bool = True
) -> Path | None:
    """Saves the file of a generation, or a render of it, at `path` or under its own name in the current folder. A
    signed manifest that the server keeps beside the file is saved beside the copy, with the extension `.c2pa`.

    Returns the path; None after writing to standard output, of which `path` is the name "-". Raises CommandError if a
    file cannot be written, is incomplete, or is of another format than the extension of `path` says.
    """
    request = DownloadRequest(generation_id=generation_id, render_id=render_id)
    path = await fetch(session, request, path, overwrite=overwrite, check_extension=True)
    if path == STANDARD_OUTPUT:
        return None
    await fetch_manifest(session, request, path)
    return path.absolute()


async def fetch_manifest(session: Session, request: DownloadRequest, path: Path) -> None:
    """Saves the signed manifest, if the server keeps one beside the file of the request, beside its copy at `path`."""
    request = DownloadRequest(generation_id=request.generation_id, render_id=request.render_id, manifest=True)
    try:
        await fetch(session, request, path.with_suffix(MANIFEST_EXTENSION))
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


async def fetch(
    session: Session,
    request: DownloadRequest,
    path: Path | None,
    *,
    overwrite: bool = True,
    check_extension: bool = False,
) -> Path:
    """Saves what is requested at `path`, like `download`, and returns the path."""
    call = session.music.Download(request, timeout=STREAM_TIMEOUT_SECONDS)
    try:
        first = await anext(aiter(call))
        if path == STANDARD_OUTPUT:
            await _write(write_audio, first, call)
            return STANDARD_OUTPUT
        path = path or Path(check_library_name(first.file_name))
        if check_extension:
            require_extension_of_file(path, first.file_name, request.generation_id)
        require_writable([path], overwrite=overwrite)
        with replacing(path) as part, open(part, "wb") as file:  # noqa: ASYNC230  # Its writes go to a thread.
            await _write(lambda data: asyncio.to_thread(file.write, data), first, call)
            await asyncio.to_thread(file.flush)
    except DataLoss as error:
        raise CommandError(f"{error.message} with --output") from error
    except OSError as error:
        raise CommandError(f"failed to write {path}: {error.strerror or error}") from error
    finally:
        call.cancel()
    return path


async def _write(
    write: Callable[[bytes], Awaitable[object]], first: DownloadResponse, rest: AsyncIterable[DownloadResponse]
) -> None:
    """Raises the error of `write`, and CommandError if the file is incomplete."""
    size = len(first.data)
    await write(first.data)
    async for response in rest:
        size += len(response.data)
        await write(response.data)
    if size != first.file_size_bytes:
        raise CommandError(f"received only {size} of {first.file_size_bytes} bytes; try again")
