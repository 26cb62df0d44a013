"""`dgx-music files export`: saves the files of many generations under readable names."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath

import grpc
import grpc.aio

from dgx_music.error_status import read_error_details
from dgx_music.export.v1.export_pb2 import DownloadRequest
from dgx_music.storage.v1.storage_pb2 import (
    GENERATION_STATE_COMPLETED,
    Generation,
    GetGenerationRequest,
    ListGenerationsRequest,
)
from gateway.cli.display.console import Console, format_state
from gateway.cli.session.command_errors import BAD_INPUT, FAILURE, CommandError, is_lost
from gateway.cli.session.files.file_placement import place_file
from gateway.cli.session.files.name_template import NameTemplate
from gateway.cli.session.files.output_files import fetch, fetch_manifest
from gateway.cli.session.pagination import MAX_PAGE_SIZE
from gateway.cli.session.runner import Session
from gateway.file_names import MANIFEST_EXTENSION, file_name
from gateway.timeouts import CALL_TIMEOUT_SECONDS
from service_runtime.validation import check_uuid

_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,10}")
_SERVER_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(frozen=True)
class Selection:
    """Which generations to export: those with these ids, or else all COMPLETED ones that match."""

    generation_ids: Sequence[str] = ()
    min_rating: int = 0
    search: str = ""

    def check(self) -> None:
        """Raises InvalidArgument if an id is not a UUID, before anything is exported."""
        for generation_id in self.generation_ids:
            check_uuid("id", generation_id)


class NoFile(Exception):
    """A generation has no file that can be exported; the message says why."""


def create_folder(folder: Path, option: str = "--to") -> Path:
    """Creates the folder if it is missing, and returns its absolute path. Raises CommandError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise CommandError(f"{option}: {folder} is not a folder", BAD_INPUT) from error
    except OSError as error:
        raise CommandError(f"{option}: failed to create the folder {folder}: {error.strerror}", BAD_INPUT) from error
    return folder.absolute()


async def export_files(
    session: Session, console: Console, selection: Selection, folder: Path, template: NameTemplate
) -> int:
    """Saves the finished files in the folder and prints their paths. Returns 1 if any could not be exported, else 0."""
    new = present = failed = 0
    async for selected in _select(session, selection):
        try:
            generation = await _fetch(session, selected) if isinstance(selected, str) else selected
            path, is_new = await save_under_name(session, generation, folder, template)
        except NoFile as error:
            failed += 1
            console.print_error(str(error))
            continue
        new += is_new
        present += not is_new
        if console.as_json:
            console.print_object({"generation_id": generation.id, "path": str(path), "is_new": is_new})
        else:
            console.print_line(str(path))
    counts = (new, "exported"), (present, "already there"), (failed, "failed")
    console.print_notice("files: " + (", ".join(f"{number} {what}" for number, what in counts if number) or "none"))
    return FAILURE if failed else 0


async def _select(session: Session, selection: Selection) -> AsyncIterator[str | Generation]:
    """Yields each selected generation, or its id if that is what the user gave."""
    for generation_id in dict.fromkeys(one.lower() for one in selection.generation_ids):
        yield generation_id
    if selection.generation_ids:
        return
    request = ListGenerationsRequest(
        states=[GENERATION_STATE_COMPLETED],
        min_rating=selection.min_rating,
        prompt_contains=selection.search,
        page_size=MAX_PAGE_SIZE,
    )
    while True:
        page = await session.music.ListGenerations(request, timeout=CALL_TIMEOUT_SECONDS)
        for generation in page.generations:
            yield generation
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return


async def _fetch(session: Session, generation_id: str) -> Generation:
    try:
        response = await session.music.GetGeneration(
            GetGenerationRequest(id=generation_id), timeout=CALL_TIMEOUT_SECONDS
        )
    except grpc.aio.AioRpcError as error:
        raise _without_file(generation_id, error) from error
    if response.generation.state != GENERATION_STATE_COMPLETED:
        raise NoFile(f"generation {generation_id} is {format_state(response.generation)} and has no file")
    return response.generation


async def save_under_name(
    session: Session, generation: Generation, folder: Path, template: NameTemplate
) -> tuple[Path, bool]:
    """Saves the file in the folder under a name that is free. Returns its path, and False if it was there already.

    Raises NoFile if only this one can't be saved, CommandError if the folder can't be written.
    """
    text, suffix = template.format(generation), PurePosixPath(generation.file_path).suffix
    suffix = suffix if _SUFFIX.fullmatch(suffix) else ""
    part = folder / f".{generation.id}.{secrets.token_hex(4)}"
    try:
        request = DownloadRequest(generation_id=generation.id)
        await fetch(session, request, part)
        names = (file_name(text, suffix, generation.id, number) for number in count(1))
        has_manifest = bool(generation.metadata.fields["manifest_path"].string_value)
        path, is_new = await asyncio.to_thread(place_file, part, names, MANIFEST_EXTENSION if has_manifest else "")
        if is_new:
            await fetch_manifest(session, request, path)
        return path, is_new
    except grpc.aio.AioRpcError as error:
        raise _without_file(generation.id, error) from error
    except CommandError as error:
        if isinstance(error.__cause__, OSError):
            raise _unwritable(folder, error.__cause__) from error.__cause__
        raise NoFile(f"generation {generation.id}: {error}") from error
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        part.unlink(missing_ok=True)


def _unwritable(folder: Path, error: OSError) -> CommandError:
    """Returns the error that ends the command: no other file could be written either."""
    return CommandError(f"failed to write to {folder}: {error.strerror or error}")


def _without_file(generation_id: str, error: grpc.aio.AioRpcError) -> Exception:
    """Returns the error for one generation, or the same error if no other one could be exported either."""
    if is_lost(error) or error.code() in _SERVER_GONE:
        return error
    message = read_error_details(error).message
    return NoFile(message if generation_id in message else f"generation {generation_id}: {message}")
